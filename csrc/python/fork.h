/* What was mapped before a fork isn't there in the forked child: objects remember their generation.
 */
#ifndef MPSPMD_PYTHON_FORK_H
#define MPSPMD_PYTHON_FORK_H

#include <stdbool.h>

/* How often this process was forked off since the import. */
extern unsigned fork_generation;

/* Begins to count forks. False: no memory. */
bool fork_count(void);

/* False, with an exception set, for an object of another generation. */
bool fork_check(unsigned generation);

#endif
