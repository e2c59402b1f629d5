/* Points at which the native tests delay a thread, or let another one act. There a wake-up or a
 * record could be lost, or two writers let in. Empty in a normal build. */
#ifndef MPSPMD_RING_HOOKS_H
#define MPSPMD_RING_HOOKS_H

enum hook {
    HOOK_PARKED_SET,
    HOOK_BEFORE_SLEEP,
    HOOK_BEFORE_WAKE,
    HOOK_BEFORE_NOTIFY,
    HOOK_BEFORE_CLAIM,
    HOOK_BEFORE_STATE,
};

#ifdef MPSPMD_TEST_HOOKS
void test_hook(enum hook point);
#define HOOK(point) test_hook(point)
#else
#define HOOK(point) ((void)0)
#endif

#endif
