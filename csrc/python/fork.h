/* A forked child doesn't have its parent's mappings. So each object remembers in which process it
 * was made, by a number that each fork increments: its generation. */
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
