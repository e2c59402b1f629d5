#include "ring/message.h"

#include <string.h>

void message_begin(struct outgoing *message, const struct iovec *parts, size_t n_parts,
                   uint16_t kind, uint64_t tag) {
    *message = (struct outgoing){.parts = parts, .n_parts = n_parts, .kind = kind, .tag = tag};
    for (size_t i = 0; i < n_parts; i++)
        message->total += parts[i].iov_len;
}

static bool is_whole(const struct ring_writer *writer, const struct outgoing *message) {
    return message->total <= ring_max_record(writer->ring);
}

/* Fragments are at most a quarter of the ring: readers copy one while the next is written. */
static uint64_t fragment_room(const struct ring_writer *writer) {
    return writer->ring->capacity / 4 - sizeof(struct record_header);
}

uint32_t message_next_length(const struct ring_writer *writer, const struct outgoing *message) {
    if (writer->torn)
        return 0;
    if (is_whole(writer, message))
        return (uint32_t)message->total;
    uint64_t prefix = message->sent == 0 ? sizeof message->total : 0;
    uint64_t left = message->total - message->sent + prefix, room = fragment_room(writer);
    return (uint32_t)(left < room ? left : room);
}

/* Copies the next `bytes` of the parts: a gather write, straight into the ring. */
static void copy_parts(struct outgoing *message, unsigned char *to, uint64_t bytes) {
    message->sent += bytes;
    while (bytes > 0) {
        const struct iovec *part = &message->parts[message->part];
        uint64_t left = part->iov_len - message->offset;
        uint64_t now = left < bytes ? left : bytes;
        if (now > 0)
            memcpy(to, (const unsigned char *)part->iov_base + message->offset, now);
        to += now;
        bytes -= now;
        message->offset += now;
        if (message->offset == part->iov_len) {
            message->part++;
            message->offset = 0;
        }
    }
}

static enum ring_result send_abort(struct ring_writer *writer) {
    enum ring_result result;
    if (!ring_claim(writer, 0, &result))
        return result;
    ring_publish(writer, (struct record_header){.flags = RECORD_ABORT});
    writer->torn = false;
    return RING_OK;
}

static enum ring_result send_record(struct ring_writer *writer, struct outgoing *message) {
    enum ring_result result;
    uint32_t length = message_next_length(writer, message);
    unsigned char *payload = ring_claim(writer, length, &result);
    if (!payload)
        return result;
    uint16_t flags = 0;
    uint64_t bytes = length;
    if (!is_whole(writer, message)) {
        flags = RECORD_PART;
        if (message->sent == 0) {
            flags |= RECORD_FIRST;
            memcpy(payload, &message->total, sizeof message->total);
            payload += sizeof message->total;
            bytes -= sizeof message->total;
        }
        if (message->sent + bytes == message->total)
            flags |= RECORD_LAST;
    }
    copy_parts(message, payload, bytes);
    ring_publish(writer, (struct record_header){
                             .length = length,
                             .kind = message->kind,
                             .flags = flags,
                             .tag = message->tag,
                         });
    return RING_OK;
}

enum ring_result message_send(struct ring_writer *writer, struct outgoing *message) {
    enum ring_result result = RING_OK;
    if (writer->torn)
        result = send_abort(writer);
    do {
        if (result == RING_OK)
            result = send_record(writer, message);
    } while (result == RING_OK && message->sent < message->total);
    return result;
}

void message_abandon(struct ring_writer *writer, const struct outgoing *message) {
    if (message->sent > 0 && message->sent < message->total)
        writer->torn = true;
}

/* Whether a writer may send this record now. If not, the ring is corrupt. */
static bool in_sequence(const struct incoming *message, const struct record *record) {
    const struct record_header *header = &record->header;
    switch (header->flags) {
    case 0:
        return !message->assembling;
    case RECORD_ABORT:
        return message->assembling && header->length == 0;
    case RECORD_PART | RECORD_FIRST:
        return !message->assembling && header->length >= sizeof message->total;
    case RECORD_PART:
    case RECORD_PART | RECORD_LAST:
        return message->assembling && header->kind == message->kind && header->tag == message->tag;
    default:
        return false;
    }
}

/* Takes the total from a first fragment. Any total that could not have been sent is refused. */
static bool begin_assembly(const struct ring_reader *reader, struct incoming *message) {
    const struct record *record = &message->record;
    memcpy(&message->total, record->payload, sizeof message->total);
    message->filled = 0;
    message->kind = record->header.kind;
    message->tag = record->header.tag;
    return message->total > ring_max_record(reader->ring) && message->total <= PTRDIFF_MAX;
}

static enum ring_result add_fragment(struct ring_reader *reader, struct incoming *message) {
    const struct record *record = &message->record;
    const unsigned char *from = record->payload;
    uint64_t bytes = record->header.length;
    if (record->header.flags & RECORD_FIRST) {
        if (!message->buffer)
            return begin_assembly(reader, message) ? RING_NEED_BUFFER : RING_CORRUPT;
        from += sizeof message->total;
        bytes -= sizeof message->total;
        message->assembling = true;
    }
    bool last = record->header.flags & RECORD_LAST;
    uint64_t left = message->total - message->filled;
    if (bytes > left || last != (bytes == left))
        return RING_CORRUPT;
    memcpy(message->buffer + message->filled, from, bytes);
    message->filled += bytes;
    ring_release(reader, record);
    return last ? RING_OK : RING_AGAIN;
}

enum ring_result message_receive(struct ring_reader *reader, struct incoming *message) {
    for (;;) {
        enum ring_result result = ring_peek(reader, &message->record);
        if (result != RING_OK)
            return result;
        if (!in_sequence(message, &message->record))
            return RING_CORRUPT;
        uint16_t flags = message->record.header.flags;
        if (flags & RECORD_ABORT) {
            ring_release(reader, &message->record);
            return RING_ABORTED;
        }
        if (!(flags & RECORD_PART))
            return RING_OK;
        result = add_fragment(reader, message);
        if (result != RING_AGAIN)
            return result;
    }
}

unsigned char *message_take(struct incoming *message) {
    unsigned char *buffer = message->buffer;
    message->buffer = NULL;
    message->assembling = false;
    return buffer;
}
