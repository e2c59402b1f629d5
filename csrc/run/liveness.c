#include "run/liveness.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { STAGE_STARTING, STAGE_HELD, STAGE_RELEASED, STAGE_ENDED };
enum { STACK_BYTES = 256 * 1024 /* room for the thread-local variables of large libraries */ };

/* How often the watcher checks in case a wake-up is lost. The native tests must not lose one. */
#ifdef MPSPMD_TEST_HOOKS
static const struct timespec CHECK = {.tv_sec = 60};
#else
static const struct timespec CHECK = {.tv_sec = 5};
#endif
static const struct timespec NUDGE = {.tv_nsec = 200000};

/* Never FUTEX_PRIVATE: the word is shared between processes. */
static void wait_on(_Atomic uint32_t *word, uint32_t seen, const struct timespec *limit) {
    syscall(SYS_futex, word, FUTEX_WAIT, seen, limit, NULL, 0);
}

static void wake_all(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Python's main thread handles the process's signals, so this thread blocks them. It leaves the
 * signals of its own crashes unblocked: a handler such as faulthandler's reports them. */
static int start_thread(pthread_t *thread, void *(*run)(void *), void *argument) {
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    pthread_attr_t attributes;
    sigset_t blocked, before;
    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
        sigdelset(&blocked, crashes[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    error = pthread_create(thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

/* Takes a liveness word that nobody holds. Keeps the bit of a watcher that sleeps already. */
static bool take(struct liveness *liveness, uint32_t thread_id) {
    uint32_t word = atomic_load(&liveness->word);
    do {
        if (word & ~(uint32_t)FUTEX_WAITERS)
            return false;
    } while (
        !atomic_compare_exchange_weak(&liveness->word, &word, thread_id | (word & FUTEX_WAITERS)));
    return true;
}

static void *hold(void *argument) {
    struct liveness_holder *holder = argument;
    /* Replaces the C library's list: this thread uses no robust mutex of the library. */
    struct robust_list_head head = {.list = {&head.list},
                                    .futex_offset = (long)offsetof(struct liveness, word) -
                                                    (long)offsetof(struct liveness, node)};
    uint32_t thread_id = (uint32_t)syscall(SYS_gettid);
    size_t held = 0;
    if (syscall(SYS_set_robust_list, &head, sizeof head) != 0)
        holder->error = errno;
    for (; held < holder->n_words && !holder->error; held++) {
        struct liveness *liveness = holder->words[held];
        /* Into the list before it is held: the kernel skips a word with another thread's id. A
         * process that is killed in between hasn't been alive to its watcher. */
        struct robust_list *first = head.list.next; /* any process may write into the node itself */
        liveness->node.next = first;
        head.list.next = &liveness->node;
        if (!take(liveness, thread_id)) {
            head.list.next = first;
            holder->error = EBUSY;
            break;
        }
    }
    if (!holder->error) {
        atomic_store(&holder->stage, STAGE_HELD);
        wake_all(&holder->stage);
        while (atomic_load(&holder->stage) == STAGE_HELD)
            wait_on(&holder->stage, STAGE_HELD, NULL);
    }
    head.list.next = &head.list;
    for (size_t i = 0; i < held; i++)
        atomic_fetch_and(&holder->words[i]->word, FUTEX_WAITERS);
    atomic_store(&holder->stage, STAGE_ENDED);
    wake_all(&holder->stage);
    return NULL;
}

int liveness_hold(struct liveness_holder *holder, struct liveness *const *words, size_t n_words) {
    if (n_words > LIVENESS_MAX_HELD)
        return EINVAL;
    *holder = (struct liveness_holder){.n_words = n_words};
    for (size_t i = 0; i < n_words; i++)
        holder->words[i] = words[i];
    int error = start_thread(&holder->thread, hold, holder);
    if (error)
        return error;
    while (atomic_load(&holder->stage) == STAGE_STARTING)
        wait_on(&holder->stage, STAGE_STARTING, NULL);
    if (atomic_load(&holder->stage) == STAGE_HELD)
        return 0;
    pthread_join(holder->thread, NULL);
    return holder->error;
}

void liveness_release(struct liveness_holder *holder) {
    atomic_store(&holder->stage, STAGE_RELEASED);
    wake_all(&holder->stage);
    pthread_join(holder->thread, NULL);
}

bool liveness_is_over(const struct liveness *liveness) {
    return atomic_load(&liveness->word) & FUTEX_OWNER_DIED;
}

static void *watch(void *argument) {
    struct liveness_watcher *watcher = argument;
    _Atomic uint32_t *word = &watcher->liveness->word;
    while (!atomic_load(&watcher->stop)) {
        uint32_t seen = atomic_load(word);
        if (seen & FUTEX_OWNER_DIED) {
            watcher->died(watcher->context);
            break;
        }
        /* Without this bit the kernel wakes nobody, and with it one thread. */
        if (!(seen & FUTEX_WAITERS) &&
            !atomic_compare_exchange_strong(word, &seen, seen | FUTEX_WAITERS))
            continue;
        wait_on(word, seen | FUTEX_WAITERS, &CHECK);
    }
    atomic_store(&watcher->ended, true);
    return NULL;
}

int liveness_watch(struct liveness_watcher *watcher, struct liveness *liveness,
                   void (*died)(void *), void *context) {
    *watcher = (struct liveness_watcher){.liveness = liveness, .died = died, .context = context};
    return start_thread(&watcher->thread, watch, watcher);
}

void liveness_unwatch(struct liveness_watcher *watcher) {
    atomic_store(&watcher->stop, true);
    /* Repeated, because a wake is lost if it comes just before the sleep: the word doesn't change.
     */
    while (wake_all(&watcher->liveness->word), !atomic_load(&watcher->ended))
        nanosleep(&NUDGE, NULL);
    pthread_join(watcher->thread, NULL);
}
