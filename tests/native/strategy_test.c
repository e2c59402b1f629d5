/* Predicting, and the strategies: what they decide, seen in what they count. */
#include "wait/strategy.h"

#include <pthread.h>
#include <unistd.h>

#include "check.h"
#include "fixture.h"

enum { US = 1000, MS = 1000000 };

static void learn_all(struct predictor *predictor, const uint64_t *gaps_ns, int n) {
    for (int i = 0; i < n; i++)
        predict_learn(predictor, gaps_ns[i], false);
}

static bool is_in(struct window window, uint64_t gap_ns) {
    return window.from_ns <= gap_ns && gap_ns <= window.to_ns;
}

static void little_knowledge_predicts_nothing(void) {
    struct predictor predictor = {0};
    struct window window;
    for (int i = 0; i < PREDICT_ENOUGH; i++) {
        CHECK(!predict_window(&predictor, 0, 100 * US, &window));
        CHECK(predict_is_short(&predictor));
        predict_learn(&predictor, 5 * MS, false);
    }
    CHECK(predict_window(&predictor, 0, 100 * US, &window));
    CHECK(is_in(window, 5 * MS));
    CHECK(!predict_is_short(&predictor));
}

static void a_rhythm_ten_times_as_slow_or_fast_is_learnt_within_20_messages(void) {
    uint64_t rhythms[] = {5 * MS, 50 * MS, 500 * US};
    struct predictor predictor = {0};
    struct window window;
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 20; k++)
            predict_learn(&predictor, rhythms[i] + (uint64_t)k * US, false);
        CHECK(predict_window(&predictor, 0, 100 * US, &window));
        CHECK(is_in(window, rhythms[i] + 10 * US));
    }
}

static void the_better_half_of_two_ways_comes_first_and_then_the_other(void) {
    struct predictor predictor = {0};
    struct window window;
    for (int k = 0; k < PREDICT_SAMPLES; k++)
        predict_learn(&predictor, (k % 2 ? 8 * MS : 1 * MS) + (uint64_t)k * US, false);
    CHECK(predict_window(&predictor, 0, 100 * US, &window));
    CHECK(is_in(window, 8 * MS + 7 * US) && !is_in(window, 1 * MS + 8 * US));
    predict_learn(&predictor, 1 * MS, false);
    CHECK(predict_window(&predictor, 0, 100 * US, &window));
    CHECK(is_in(window, 1 * MS + 8 * US));
    CHECK(predict_window(&predictor, 2 * MS, 100 * US, &window));
    CHECK(is_in(window, 8 * MS + 7 * US));
    CHECK(!predict_window(&predictor, 9 * MS, 100 * US, &window));
}

static void one_long_time_is_not_the_usual_one(void) {
    struct predictor predictor = {0};
    predict_learn(&predictor, 9000 * (uint64_t)MS, false);
    for (int k = 1; k < PREDICT_ENOUGH; k++) {
        CHECK_EQUAL(predict_longest(&predictor), 0);
        predict_learn(&predictor, (uint64_t)k * MS, false);
    }
    CHECK_EQUAL(predict_longest(&predictor), (PREDICT_ENOUGH - 1) * MS);
}

static void what_comes_at_any_time_is_not_predicted(void) {
    uint64_t gaps_ns[] = {1 * MS, 9 * MS, 4 * MS, 30 * MS, 2 * MS, 15 * MS, 22 * MS, 6 * MS};
    struct predictor predictor = {0};
    struct window window;
    learn_all(&predictor, gaps_ns, 8);
    learn_all(&predictor, (uint64_t[]){11 * MS, 19 * MS, 3 * MS, 27 * MS}, 4);
    CHECK(!predict_window(&predictor, 0, 400 * US, &window));
}

struct subject {
    struct strategy strategy;
    struct waiting waiting;
    struct waiter waiter;
    struct spinners *spinners;
    _Atomic uint64_t counters[N_COUNTERS];
    bool (*ready)(struct subject *);
    uint32_t looks, most_spinners;
};

static bool look(void *condition) {
    struct subject *subject = condition;
    subject->looks++;
    uint32_t now = subject->spinners ? atomic_load(&subject->spinners->now) : 0;
    if (now > subject->most_spinners)
        subject->most_spinners = now;
    return subject->ready && subject->ready(subject);
}

enum { MANY = 64 /* ranks, with as many cores: so processes share cores, and all may look */ };

/* Somebody who waits for what nobody sends, and has learnt that it takes `gap_ns`. */
static void make_subject(struct subject *subject, struct bell *bell, struct spinners *spinners,
                         uint64_t gap_ns) {
    *subject = (struct subject){.spinners = spinners};
    subject->waiter = (struct waiter){
        .bell = bell,
        .bit = 1,
        .ready = look,
        .condition = subject,
        .counters = subject->counters,
    };
    static struct spinners enough = {.allowed = MANY - 1};
    strategy_init(&subject->strategy, WAIT_AUTO, spinners ? spinners : &enough, MANY);
    for (int i = 0; i < PREDICT_SAMPLES; i++) {
        struct waiting past = {.start_ns = 1000};
        strategy_learn(&subject->strategy, &past, &subject->waiter, 1000 + gap_ns + (uint64_t)i);
    }
}

static void begin(struct subject *subject) {
    subject->waiting = (struct waiting){0};
    CHECK(!strategy_begin(&subject->strategy, &subject->waiting, &subject->waiter));
}

static enum wait_result go_on(struct subject *subject, uint64_t ns) {
    enum wait_result result = WAIT_SIGNAL;
    while (result == WAIT_SIGNAL)
        result = strategy_wait(&subject->strategy, &subject->waiting, &subject->waiter,
                               subject->waiting.start_ns + ns);
    return result;
}

static enum wait_result wait_for(struct subject *subject, uint64_t ns) {
    begin(subject);
    return go_on(subject, ns);
}

/* Long enough that a busy machine seldom lets the process wait beyond the window before it begins.
 */
enum { IN_A_WHILE = 20 * MS };

static void silence_is_slept_through_after_one_window(void) {
    static struct bell bell;
    static struct spinners spinners = {.allowed = 1};
    struct subject subject;
    make_subject(&subject, &bell, &spinners, IN_A_WHILE);
    CHECK_EQUAL(wait_for(&subject, 400 * MS), WAIT_TIMEOUT);
    CHECK(subject.waiting.predicted);
    CHECK_EQUAL(subject.counters[COUNT_PARKS], 2); /* until the window, and from there to the end */
    CHECK(subject.waiting.polled_ns > 0);
    CHECK_EQUAL(spinners.now, 0);
}

static void nobody_looks_at_a_time_that_four_predictions_have_missed(void) {
    static struct bell bell;
    struct subject subject;
    make_subject(&subject, &bell, NULL, IN_A_WHILE);
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(wait_for(&subject, 30 * MS), WAIT_TIMEOUT);
        strategy_learn(&subject.strategy, &subject.waiting, &subject.waiter,
                       subject.waiting.start_ns + (uint64_t)(40 + 10 * i) * MS);
    }
    CHECK_EQUAL(subject.counters[COUNT_MISPREDICTED], 4);
    CHECK_EQUAL(wait_for(&subject, 30 * MS), WAIT_TIMEOUT);
    CHECK_EQUAL(subject.waiting.polled_ns, 0);
    CHECK(subject.waiting.predicted);
    strategy_learn(&subject.strategy, &subject.waiting, &subject.waiter,
                   subject.waiting.start_ns + subject.waiting.expected.from_ns);
    CHECK_EQUAL(wait_for(&subject, 30 * MS), WAIT_TIMEOUT);
    CHECK(subject.waiting.polled_ns > 0);
}

/* The newest of the times that a subject has learnt. */
static uint64_t learnt_last(const struct subject *subject) {
    const struct predictor *predictor = &subject->strategy.predictors[0]; /* of key 0 */
    return predictor->gaps_ns[(predictor->next + PREDICT_SAMPLES - 1) % PREDICT_SAMPLES];
}

static void the_time_of_an_earlier_message_is_not_learnt(void) {
    static struct bell bell;
    struct subject subject;
    make_subject(&subject, &bell, NULL, 2 * MS);
    CHECK_EQUAL(wait_for(&subject, 3 * MS), WAIT_TIMEOUT);
    strategy_learn(&subject.strategy, &subject.waiting, &subject.waiter,
                   subject.waiting.start_ns - 1);
    uint64_t gap_ns = learnt_last(&subject);
    CHECK(gap_ns >= 3 * (uint64_t)MS && gap_ns < 60000 * (uint64_t)MS);
    CHECK(!(subject.strategy.predictors[0].shorts & 1));
}

static void what_is_there_at_once_is_learnt_as_short(void) {
    static struct bell bell;
    struct subject subject;
    make_subject(&subject, &bell, NULL, 2 * MS);
    subject.waiting = (struct waiting){.start_ns = 1000, .at_once = true};
    strategy_learn(&subject.strategy, &subject.waiting, &subject.waiter, 0);
    CHECK_EQUAL(learnt_last(&subject), 0);
    CHECK(subject.strategy.predictors[0].shorts & 1);
}

static atomic_bool has_come;

static bool comes(struct subject *subject) {
    (void)subject;
    return has_come;
}

static void what_was_there_at_once_but_is_waited_on_for_is_not_short(void) {
    static struct bell bell;
    struct subject subject;
    make_subject(&subject, &bell, NULL, 2 * MS);
    subject.strategy.spin_ns = MS;
    subject.ready = comes;
    subject.waiting = (struct waiting){0};
    has_come = true;
    CHECK(strategy_begin(&subject.strategy, &subject.waiting, &subject.waiter));
    has_come = false; /* it was a fragment */
    CHECK_EQUAL(go_on(&subject, 3 * MS), WAIT_TIMEOUT);
    strategy_learn(&subject.strategy, &subject.waiting, &subject.waiter, 0);
    CHECK(learnt_last(&subject) >= 3 * (uint64_t)MS);
}

static void *let_it_come(void *bell) {
    usleep(20000);
    has_come = true;
    bell_ring(bell);
    return NULL;
}

static void a_message_ends_the_wait(struct subject *subject) {
    subject->ready = comes;
    has_come = false;
    begin(subject);
    pthread_t sender;
    pthread_create(&sender, NULL, let_it_come, subject->waiter.bell);
    CHECK_EQUAL(go_on(subject, UINT64_C(60000) * MS), WAIT_READY);
    pthread_join(sender, NULL);
}

static void a_message_before_its_time_is_taken_from_the_sleep(void) {
    static struct bell bell;
    struct subject subject;
    make_subject(&subject, &bell, NULL, 2000 * (uint64_t)MS);
    a_message_ends_the_wait(&subject);
    CHECK_EQUAL(subject.counters[COUNT_EARLY], 1);
}

static void *wait_three_times(void *argument) {
    struct subject *subject = argument;
    for (int i = 0; i < 3; i++) {
        subject->strategy.predictors[0].misses = 0;
        CHECK_EQUAL(wait_for(subject, 5 * MS), WAIT_TIMEOUT);
    }
    return NULL;
}

static void never_more_threads_look_than_are_allowed(void) {
    static struct bell bell;
    static struct spinners spinners = {.allowed = 2};
    struct subject subjects[6];
    pthread_t threads[6];
    for (int i = 0; i < 6; i++) {
        make_subject(&subjects[i], &bell, &spinners, 2 * MS);
        pthread_create(&threads[i], NULL, wait_three_times, &subjects[i]);
    }
    uint32_t most = 0;
    for (int i = 0; i < 6; i++) {
        pthread_join(threads[i], NULL);
        most = subjects[i].most_spinners > most ? subjects[i].most_spinners : most;
    }
    CHECK(most >= 1 && most <= 2);
    CHECK_EQUAL(spinners.now, 0);
}

static void a_thread_too_many_gives_up_its_window(void) {
    static struct bell bell;
    static struct spinners spinners = {.now = 1, .allowed = 1};
    struct subject subject;
    make_subject(&subject, &bell, &spinners, IN_A_WHILE);
    CHECK_EQUAL(wait_for(&subject, 30 * MS), WAIT_TIMEOUT);
    CHECK(subject.waiting.predicted);
    CHECK_EQUAL(subject.most_spinners, 1);
    CHECK_EQUAL(spinners.now, 1);
}

/* In one wait, a thread that sleeps polls at most this often, and one that polls does it more
 * often. The number is small because each yield may take milliseconds on a busy machine. */
enum { OFTEN = 8 };

/* Of several waits one is enough: a busy machine may let a single one poll only a few times. */
static bool polls_often(struct subject *subject, uint64_t wait_ns) {
    for (int i = 0; i < 20 && subject->looks <= OFTEN; i++) {
        subject->looks = 0;
        CHECK_EQUAL(wait_for(subject, wait_ns), WAIT_TIMEOUT);
    }
    return subject->looks > OFTEN;
}

static void each_strategy_waits_in_its_own_way(void) {
    enum wait_strategy kinds[] = {WAIT_SPIN, WAIT_YIELD, WAIT_PARK};
    for (int i = 0; i < 3; i++) {
        static struct bell bell;
        struct subject subject;
        make_subject(&subject, &bell, NULL, 2 * MS);
        subject.strategy.kind = kinds[i];
        CHECK_EQUAL(wait_for(&subject, 50 * MS), WAIT_TIMEOUT);
        CHECK_EQUAL(subject.counters[COUNT_PARKS], kinds[i] == WAIT_PARK);
        CHECK(kinds[i] == WAIT_PARK ? subject.looks <= OFTEN : polls_often(&subject, 50 * MS));
        a_message_ends_the_wait(&subject);
    }
}

/* Its cores are its ranks', so it looks on for as long as such steps take; but not for ever. */
static void an_engine_without_a_core_stays_awake_during_a_step(void) {
    static struct bell bell;
    struct subject subject;
    make_subject(&subject, &bell, NULL, 20 * MS);
    subject.strategy.kind = WAIT_AWAKE;
    CHECK_EQUAL(wait_for(&subject, 39 * MS), WAIT_TIMEOUT);
    CHECK_EQUAL(subject.counters[COUNT_PARKS], 0);
    CHECK(polls_often(&subject, 39 * MS));
    CHECK_EQUAL(wait_for(&subject, 50 * MS), WAIT_TIMEOUT);
    CHECK_EQUAL(subject.counters[COUNT_PARKS], 1);
    make_subject(&subject, &bell, NULL, 2000 * MS);
    subject.strategy.kind = WAIT_AWAKE;
    CHECK_EQUAL(wait_for(&subject, 300 * MS), WAIT_TIMEOUT);
    CHECK_EQUAL(subject.counters[COUNT_PARKS], 1);
    a_message_ends_the_wait(&subject);
}

static void an_engine_sleeps_from_when_it_has_a_core_of_its_own(void) {
    static struct bell bell;
    static struct spinners spinners = {.allowed = MANY - 1};
    struct subject subject;
    make_subject(&subject, &bell, &spinners, 20 * MS);
    subject.strategy.kind = WAIT_AWAKE;
    CHECK_EQUAL(subject.strategy.spin_ns, 0);
    spinners.allowed = MANY;
    CHECK_EQUAL(wait_for(&subject, 39 * MS), WAIT_TIMEOUT);
    CHECK(subject.counters[COUNT_PARKS] > 0);
    CHECK(subject.strategy.spin_ns > 0);
    spinners.allowed = MANY - 1;
    wait_for(&subject, 5 * MS);
    CHECK_EQUAL(subject.strategy.spin_ns, 0);
    uint64_t slept = subject.counters[COUNT_PARKS];
    CHECK_EQUAL(wait_for(&subject, 39 * MS), WAIT_TIMEOUT);
    CHECK_EQUAL(subject.counters[COUNT_PARKS], slept);
}

/* A signal ends neither a look nor a sleep that follows it: so whoever waits comes back to ask. */
static void a_wait_ends_early_in_case_of_a_signal(void) {
    enum wait_strategy kinds[] = {WAIT_SPIN, WAIT_YIELD, WAIT_AWAKE, WAIT_PARK, WAIT_AUTO};
    for (int i = 0; i < 5; i++) {
        static struct bell bell;
        struct subject subject;
        make_subject(&subject, &bell, NULL, 2000 * (uint64_t)MS);
        subject.strategy.kind = kinds[i];
        begin(&subject);
        CHECK_EQUAL(strategy_wait(&subject.strategy, &subject.waiting, &subject.waiter,
                                  subject.waiting.start_ns + UINT64_C(5000) * MS),
                    WAIT_SIGNAL);
        CHECK_EQUAL(subject.counters[COUNT_PARKS], kinds[i] == WAIT_PARK || kinds[i] == WAIT_AUTO);
    }
}

const struct test strategy_tests[] = {
    {TEST(little_knowledge_predicts_nothing)},
    {TEST(a_rhythm_ten_times_as_slow_or_fast_is_learnt_within_20_messages)},
    {TEST(the_better_half_of_two_ways_comes_first_and_then_the_other)},
    {TEST(one_long_time_is_not_the_usual_one)},
    {TEST(what_comes_at_any_time_is_not_predicted)},
    {TEST(silence_is_slept_through_after_one_window)},
    {TEST(nobody_looks_at_a_time_that_four_predictions_have_missed)},
    {TEST(the_time_of_an_earlier_message_is_not_learnt)},
    {TEST(what_is_there_at_once_is_learnt_as_short)},
    {TEST(what_was_there_at_once_but_is_waited_on_for_is_not_short)},
    {TEST(a_message_before_its_time_is_taken_from_the_sleep)},
    {TEST(never_more_threads_look_than_are_allowed)},
    {TEST(a_thread_too_many_gives_up_its_window)},
    {TEST(each_strategy_waits_in_its_own_way)},
    {TEST(an_engine_without_a_core_stays_awake_during_a_step)},
    {TEST(an_engine_sleeps_from_when_it_has_a_core_of_its_own)},
    {TEST(a_wait_ends_early_in_case_of_a_signal)},
    {0},
};
