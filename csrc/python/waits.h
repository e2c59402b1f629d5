/* Waiting, for threads that hold the interpreter's lock. */
#ifndef MPSPMD_PYTHON_WAITS_H
#define MPSPMD_PYTHON_WAITS_H

#include "extension/extension.h"
#include "ring/layout.h"
#include "wait/strategy.h"

enum { N_WAIT_COUNTS = 6 };

/* Waits as `strategy` says: first with the lock, then without it. 1 when ready, 0 at the deadline,
 * -1 with an exception set when a signal's handler raised. */
int waits_run(struct strategy *strategy, struct waiting *waiting, const struct waiter *waiter,
              uint64_t deadline_ns);

enum { MOST_IN_A_ROW = 64 /* messages, until waits_let_others_run() is due */ };

/* Other threads that want the interpreter's lock get it, and signals' handlers are called: for a
 * loop that may neither wait nor run Python code for long. False with an exception set. */
bool waits_let_others_run(void);

/* The counters of a status line, or of `own`, which has N_WAIT_COUNTS, where there is no line. */
struct wait_counts waits_counts(struct status_line *line, _Atomic uint64_t *own);

/* A dict of the counts by their names; NULL with an exception set. */
PyObject *waits_counts_dict(const struct wait_counts *counts);

#endif
