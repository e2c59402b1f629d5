#include "stream.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "scene.h"

static void *allocate(uint64_t bytes) {
    void *memory = malloc(bytes);
    if (!memory)
        side_fails("stream", "no memory for %" PRIu64 " bytes", bytes);
    return memory;
}

void outbox_open(struct outbox *outbox, struct ring *ring, uint64_t seed) {
    *outbox = (struct outbox){.load = {.seed = seed, .capacity = ring->capacity}};
    uint32_t holder;
    if (ring_writer_init(&outbox->writer, ring, (uint32_t)getpid(), &holder) != RING_OK)
        side_fails("stream", "process %" PRIu32 " writes to the ring", holder);
    outbox->bytes = allocate(LOAD_MAX_RINGS * ring->capacity);
}

void outbox_close(struct outbox *outbox) {
    ring_close(outbox->writer.ring);
    free(outbox->bytes);
    outbox->bytes = NULL;
}

static void begin(struct outbox *outbox) {
    outbox->sample = load_sample(&outbox->load, outbox->sample.sequence);
    size_t n_parts = load_fill(&outbox->sample, outbox->bytes, outbox->parts);
    message_begin(&outbox->message, outbox->parts, n_parts, outbox->sample.kind,
                  outbox->sample.sequence);
    outbox->begun = true;
}

enum ring_result outbox_send(struct outbox *outbox) {
    if (!outbox->begun)
        begin(outbox);
    enum ring_result result = message_send(&outbox->writer, &outbox->message);
    if (result == RING_AGAIN && outbox->message.sent > 0 && outbox->sample.impatient &&
        !outbox->patient) {
        message_abandon(&outbox->writer, &outbox->message);
        result = RING_ABORTED;
    }
    if (result == RING_OK || result == RING_ABORTED) {
        outbox->begun = false;
        outbox->sample.sequence++;
    }
    return result;
}

uint32_t outbox_next_length(const struct outbox *outbox) {
    return message_next_length(&outbox->writer, &outbox->message);
}

void outbox_want(struct outbox *outbox) {
    uint32_t length = outbox_next_length(outbox);
    outbox->hasty = !outbox->hasty;
    if (outbox->hasty)
        ring_want_least(&outbox->writer, length);
    else
        ring_want(&outbox->writer, length);
}

void inbox_open(struct inbox *inbox, const char *who, struct ring *ring, uint32_t slot,
                uint64_t seed) {
    *inbox = (struct inbox){.who = who, .load = {.seed = seed, .capacity = ring->capacity}};
    if (!ring_attach(&inbox->reader, ring, slot, (uint32_t)getpid()))
        side_fails(who, "can't attach to slot %" PRIu32, slot);
}

static void check(const struct inbox *inbox, uint64_t tag, uint16_t kind, uint64_t total,
                  const unsigned char *bytes) {
    struct sample expected = load_sample(&inbox->load, inbox->sequence);
    if (tag != expected.sequence || kind != expected.kind || total != expected.total)
        side_fails(inbox->who,
                   "message %" PRIu64 " came with tag %" PRIu64 ", kind %u, %" PRIu64
                   " bytes instead of kind %u, %" PRIu64 " bytes",
                   expected.sequence, tag, kind, total, expected.kind, expected.total);
    uint64_t same = load_first_difference(&expected, bytes);
    if (same != total)
        side_fails(inbox->who, "message %" PRIu64 " is wrong from byte %" PRIu64 " of %" PRIu64,
                   expected.sequence, same, total);
}

enum ring_result inbox_take(struct inbox *inbox) {
    struct incoming *in = &inbox->incoming;
    enum ring_result result;
    while ((result = message_receive(&inbox->reader, in)) == RING_NEED_BUFFER)
        in->buffer = allocate(in->total);
    const struct record *record = &in->record;
    switch (result) {
    case RING_OK:
        if (in->buffer) {
            check(inbox, in->tag, in->kind, in->total, in->buffer);
        } else {
            check(inbox, record->header.tag, record->header.kind, record->header.length,
                  record->payload);
            ring_release(&inbox->reader, record);
        }
        break;
    case RING_ABORTED:
        if (!in->buffer || !load_sample(&inbox->load, inbox->sequence).impatient)
            side_fails(inbox->who, "message %" PRIu64 " is aborted", inbox->sequence);
        break;
    case RING_CORRUPT:
        side_fails(inbox->who, "corrupt at message %" PRIu64, inbox->sequence);
    default:
        return result;
    }
    free(message_take(in));
    inbox->sequence++;
    return result;
}
