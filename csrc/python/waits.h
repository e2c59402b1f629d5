/* Waiting, for threads that hold the interpreter's lock. */
#ifndef MPSPMD_PYTHON_WAITS_H
#define MPSPMD_PYTHON_WAITS_H

#include "extension/extension.h"
#include "ring/layout.h"
#include "wait/strategy.h"

/* Waits as `strategy` says: first with the lock, then without it. 1 when ready, 0 at the deadline,
 * -1 with an exception set when a signal's handler raised. */
int waits_run(struct strategy *strategy, struct waiting *waiting, const struct waiter *waiter,
              uint64_t deadline_ns);

enum { MOST_IN_A_ROW = 64 /* messages, until waits_let_others_run() is due */ };

/* Other threads that want the interpreter's lock get it, and signals' handlers are called: for a
 * loop that may neither wait nor run Python code for long. False with an exception set. */
bool waits_let_others_run(void);

/* Adds the counters from `first` to `last` to a dict, by their names. False with an exception set.
 */
bool waits_add_counters(PyObject *dict, const _Atomic uint64_t *counters, enum counter first,
                        enum counter last);

#endif
