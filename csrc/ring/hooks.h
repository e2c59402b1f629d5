/* Points at which the native tests delay a thread, so that a lost wake-up would be likelier. Empty
 * in a normal build. */
#ifndef MPSPMD_RING_HOOKS_H
#define MPSPMD_RING_HOOKS_H

enum hook { HOOK_PARKED_SET, HOOK_BEFORE_SLEEP, HOOK_BEFORE_WAKE, HOOK_BEFORE_NOTIFY };

#ifdef MPSPMD_TEST_HOOKS
void test_hook(enum hook point);
#define HOOK(point) test_hook(point)
#else
#define HOOK(point) ((void)0)
#endif

#endif
