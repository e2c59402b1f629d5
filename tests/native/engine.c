/* The engine's side: writes the requests, and takes every reply that comes meanwhile. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "scene.h"
#include "stream.h"

struct engine {
    struct scene *scene;
    struct side *side;
    struct outbox requests;
    bool sending;
    struct inbox replies[RING_MAX_READERS];
    bool ended[RING_MAX_READERS];
    uint32_t n_open;
};

static bool is_expected_to_end(const struct engine *engine, uint32_t rank,
                               enum ring_result result) {
    const struct options *options = &engine->scene->options;
    if (result == RING_POISONED)
        return options->poison_at || (options->kill_at && rank == 0);
    return result == RING_CLOSED && (options->poison_at || engine->replies[rank].sequence ==
                                                               options->messages / REPLY_EVERY + 1);
}

static void take_replies(struct engine *engine) {
    for (uint32_t rank = 0; rank < engine->scene->options.n_readers; rank++) {
        enum ring_result result = RING_AGAIN;
        while (!engine->ended[rank] && (result = inbox_take(&engine->replies[rank])) == RING_OK)
            ;
        if (engine->ended[rank] || result == RING_AGAIN)
            continue;
        if (!is_expected_to_end(engine, rank, result))
            side_fails("engine", "replies of rank %" PRIu32 " end with %d after %" PRIu64, rank,
                       (int)result, engine->replies[rank].sequence);
        free(message_take(&engine->replies[rank].incoming));
        engine->ended[rank] = true;
        engine->n_open--;
    }
}

static bool has_something_to_do(void *argument) {
    struct engine *engine = argument;
    if (engine->sending &&
        ring_writable(&engine->requests.writer, outbox_next_length(&engine->requests)))
        return true;
    for (uint32_t rank = 0; rank < engine->scene->options.n_readers; rank++)
        if (!engine->ended[rank] && ring_readable(&engine->replies[rank].reader))
            return true;
    return false;
}

static void wait_for_something(struct engine *engine) {
    struct waiter waiter = {
        .bell = &engine->scene->engine_bell,
        .bit = engine->sending ? 1 | SPACE_BIT : 1,
        .ready = has_something_to_do,
        .condition = engine,
        .counters = engine->side->counters,
    };
    if (engine->sending)
        outbox_want(&engine->requests);
    scene_wait(engine->scene, engine->side, engine->sending ? WAITS_FOR_SPACE : WAITS_FOR_REPLIES,
               &waiter);
    take_replies(engine);
}

/* False when the ring was poisoned. */
static bool send_one(struct engine *engine) {
    enum ring_result result;
    while ((result = outbox_send(&engine->requests)) == RING_AGAIN)
        wait_for_something(engine);
    if (result == RING_POISONED)
        return false;
    if (result == RING_ABORTED)
        atomic_fetch_add_explicit(&engine->side->aborted, 1, memory_order_relaxed);
    else if (result != RING_OK)
        side_fails("engine", "sending ends with %d", (int)result);
    atomic_store_explicit(&engine->side->messages, engine->requests.sample.sequence,
                          memory_order_relaxed);
    return true;
}

void engine_run(struct scene *scene, struct rings *rings) {
    const struct options *options = &scene->options;
    struct engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        side_fails("engine", "no memory");
    engine->scene = scene;
    engine->side = &scene->engine;
    engine->sending = true;
    engine->n_open = options->n_readers;
    if (options->delays)
        delays_start(scene_seed(scene, 100));
    outbox_open(&engine->requests, &rings->request, scene_seed(scene, 0));
    for (uint32_t rank = 0; rank < options->n_readers; rank++)
        inbox_open(&engine->replies[rank], "engine, reading replies", &rings->replies[rank], 0,
                   scene_seed(scene, rank + 1));
    side_is(engine->side, WORKS);
    while (engine->requests.sample.sequence < options->messages) {
        /* The last message must arrive; and with poison, what was sent is counted. */
        engine->requests.patient =
            options->poison_at || engine->requests.sample.sequence + 1 == options->messages;
        if (!send_one(engine))
            break;
    }
    engine->sending = false;
    if (options->seed & 1) /* the end meets ranks asleep, or still at work */
        let_others_sleep();
    outbox_close(&engine->requests);
    take_replies(engine);
    while (engine->n_open > 0)
        wait_for_something(engine);
    free(engine);
    side_is(&scene->engine, HAS_FINISHED);
}
