#include "check.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CLAIM_LIMIT_S = 10 };

void check_failed(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    _exit(1);
}

void check_equal(const char *file, int line, const char *what, unsigned long long actual,
                 unsigned long long expected) {
    if (actual != expected)
        check_failed(file, line, "%s is %llu, not %llu", what, actual, expected);
}

static bool holds(const struct test *test) {
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        exit(1);
    }
    if (child == 0) {
        alarm(CLAIM_LIMIT_S);
        test->run();
        exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    fprintf(stderr, "FAILED %s", test->claim);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        fprintf(stderr, " (hung for %d s)", CLAIM_LIMIT_S);
    else if (WIFSIGNALED(status))
        fprintf(stderr, " (%s)", strsignal(WTERMSIG(status)));
    fprintf(stderr, "\n");
    return false;
}

bool check_all(const struct test *tests, struct tally *tally) {
    bool all = true;
    for (; tests->claim && (all || !tally->stop); tests++) {
        if (tests->needs_kernel && tally->emulated) {
            tally->n_left_out++;
            continue;
        }
        all = holds(tests) && all;
        tally->n_run++;
    }
    return all;
}
