/* A rank's side: reads and checks every request, and replies now and then. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "scene.h"
#include "stream.h"

struct rank {
    struct scene *scene;
    struct rings *rings;
    struct side *side;
    uint32_t number;
    char name[16];
    struct inbox requests;
    struct outbox replies;
    bool muted; /* the reply ring is poisoned */
};

static bool has_request(void *reader) {
    return ring_readable(reader);
}

static bool has_reply_space(void *argument) {
    struct rank *rank = argument;
    return ring_writable(&rank->replies.writer, outbox_next_length(&rank->replies));
}

static void wait_for_request(struct rank *rank) {
    struct waiter waiter = {
        .bell = rank->rings->request.data_bell,
        .bit = UINT64_C(1) << rank->number,
        .ready = has_request,
        .condition = &rank->requests.reader,
        .counters = rank->side->counters,
    };
    scene_wait(rank->scene, rank->side, WAITS_FOR_REQUEST, &waiter);
}

static void wait_for_reply_space(struct rank *rank) {
    struct waiter waiter = {
        .bell = rank->rings->replies[rank->number].space_bell,
        .bit = SPACE_BIT,
        .ready = has_reply_space,
        .condition = rank,
        .counters = rank->side->counters,
    };
    outbox_want(&rank->replies);
    scene_wait(rank->scene, rank->side, WAITS_FOR_REPLY_SPACE, &waiter);
}

static void reply(struct rank *rank) {
    enum ring_result result = RING_POISONED;
    while (!rank->muted && (result = outbox_send(&rank->replies)) == RING_AGAIN)
        wait_for_reply_space(rank);
    if (result == RING_POISONED && rank->scene->options.poison_at)
        rank->muted = true;
    else if (result != RING_OK)
        side_fails(rank->name, "replying ends with %d", (int)result);
}

static void poison_everything(struct rank *rank) {
    ring_poison(&rank->rings->request, POISON_CODE, (int32_t)rank->number);
    for (uint32_t i = 0; i < rank->scene->options.n_readers; i++)
        ring_poison(&rank->rings->replies[i], POISON_CODE, (int32_t)rank->number);
}

static void check_end(const struct rank *rank, enum ring_result result) {
    const struct options *options = &rank->scene->options;
    uint64_t expected = options->poison_at
                            ? STATE_PACK(STATE_POISONED, POISON_CODE, options->n_readers - 1)
                            : STATE_PACK(STATE_CLOSED, 0, 0);
    if (result != (options->poison_at ? RING_POISONED : RING_CLOSED) ||
        ring_state_word(&rank->rings->request) != expected ||
        (!options->poison_at && rank->requests.sequence != options->messages))
        side_fails(rank->name, "requests end with %d after %" PRIu64, (int)result,
                   rank->requests.sequence);
}

/* Acts upon one request that was taken. False when this rank is to die now. */
static bool act(struct rank *rank) {
    const struct options *options = &rank->scene->options;
    uint64_t count = rank->requests.sequence;
    atomic_store_explicit(&rank->side->messages, count, memory_order_relaxed);
    if (count == options->poison_at && rank->number == options->n_readers - 1)
        poison_everything(rank);
    if (count % REPLY_EVERY == 0)
        reply(rank);
    /* A process is killed by its parent, at any point; a thread can only leave. */
    return options->processes || count != options->kill_at || rank->number != 0;
}

void rank_run(struct scene *scene, struct rings *rings, uint32_t number) {
    struct rank *rank = calloc(1, sizeof *rank);
    if (!rank)
        side_fails("rank", "no memory");
    rank->scene = scene;
    rank->rings = rings;
    rank->side = &scene->ranks[number];
    rank->number = number;
    snprintf(rank->name, sizeof rank->name, "rank %" PRIu32, number);
    if (scene->options.delays)
        delays_start(scene_seed(scene, 101 + number));
    inbox_open(&rank->requests, rank->name, &rings->request, number, scene_seed(scene, 0));
    outbox_open(&rank->replies, &rings->replies[number], scene_seed(scene, number + 1));
    rank->replies.patient = true;
    bool alive = true;
    enum ring_result result = RING_AGAIN;
    while (alive && (result == RING_AGAIN || result == RING_OK || result == RING_ABORTED)) {
        result = inbox_take(&rank->requests);
        if (result == RING_AGAIN)
            wait_for_request(rank);
        else if (result == RING_OK || result == RING_ABORTED)
            alive = act(rank);
    }
    if (alive) {
        check_end(rank, result);
        reply(rank);
        outbox_close(&rank->replies);
    }
    free(message_take(&rank->requests.incoming));
    free(rank->replies.bytes);
    free(rank);
    side_is(&scene->ranks[number], HAS_FINISHED);
}
