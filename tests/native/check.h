/* Tests as claims: each is a function whose name says what is true, run in a process of its own,
 * so that a crash or a hang is the failure of one claim. */
#ifndef NATIVE_CHECK_H
#define NATIVE_CHECK_H

#include <stdbool.h>
#include <stddef.h>

struct test {
    const char *claim; /* NULL ends a table */
    void (*run)(void);
    bool needs_kernel;
};
#define TEST(function) .claim = #function, .run = function
/* A claim that qemu-user can't show: it has no robust futexes, and gives a forked child all
 * mappings. */
#define TEST_OF_KERNEL(function) TEST(function), .needs_kernel = true

/* A file of tests each. */
extern const struct test layout_tests[], ring_tests[], end_tests[], message_tests[],
    corruption_tests[], wait_tests[], wake_tests[], strategy_tests[], litmus_tests[],
    liveness_tests[], claim_tests[], status_tests[], recorder_tests[];

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, "%s", #condition))
#define CHECK_EQUAL(actual, expected)                                                              \
    check_equal(__FILE__, __LINE__, #actual, (unsigned long long)(actual),                         \
                (unsigned long long)(expected))

__attribute__((format(printf, 3, 4))) _Noreturn void check_failed(const char *file, int line,
                                                                  const char *format, ...);
void check_equal(const char *file, int line, const char *what, unsigned long long actual,
                 unsigned long long expected);

struct tally {
    bool stop, emulated; /* at the first failure; without what needs the kernel itself */
    size_t n_run, n_left_out;
};

/* True if every claim of the table holds. Prints those that don't. */
bool check_all(const struct test *tests, struct tally *tally);

#endif
