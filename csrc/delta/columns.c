/* Lists of ints along the keys, against what each row is predicted to have. */
#include "delta/fields.h"

static enum column column_of(enum field_kind kind) {
    return kind == FIELD_TREND ? COLUMN_TREND : COLUMN_PROGRESS;
}

/* What each row's number is predicted to grow by. */
static int64_t *steps_of(const struct message *message, enum column column) {
    return message->rows->columns[column == COLUMN_TREND ? COLUMN_TREND_STEP : COLUMN_COUNT];
}

static inline int64_t next_value(const int64_t *last, const int64_t *steps, uint32_t slot) {
    return (int64_t)((uint64_t)last[slot] + (uint64_t)steps[slot]);
}

static void predict(const struct message *message, int64_t *values, enum column column) {
    const int64_t *last = message->rows->columns[column], *steps = steps_of(message, column);
    for (size_t i = 0; i < message->keys.n; i++)
        values[i] = next_value(last, steps, message->keys.at[i]);
}

/* The new values are in message->scratch.actual. */
static void take_changes(struct message *message, enum column column) {
    const int64_t *values = message->scratch.actual.at, *last = message->rows->columns[column];
    int64_t *steps = steps_of(message, column);
    uint64_t digest = 0;
    /* One row after the other: a key may come twice. */
    for (size_t i = 0; i < message->keys.n; i++) {
        uint32_t slot = message->keys.at[i];
        if (column == COLUMN_TREND)
            steps[slot] = (int64_t)((uint64_t)values[i] - (uint64_t)last[slot]);
        digest += rows_set(message->rows, column, slot, values[i]);
    }
    message->digest += rows_digest_column(column, digest);
}

/* Lets each row grow by its step for as long as the list agrees. Returns for how many rows. */
static size_t follow(const struct message *message, PyObject *list, int64_t *last,
                     const int64_t *steps, uint64_t *digest) {
    const uint32_t *slots = message->keys.at;
    size_t i = 0, n = message->keys.n;
    int64_t number;
    for (; i < n; i++) {
        uint32_t slot = slots[i];
        int64_t value = next_value(last, steps, slot);
        if (!number_of(PyList_GET_ITEM(list, (Py_ssize_t)i), &number) || number != value)
            break;
        last[slot] = value;
        *digest += rows_digest_cell(slot, value);
    }
    return i;
}

/* Writes a column that is all as predicted, in one pass: the encoder's innermost loop. If it isn't,
 * changes nothing. */
static bool put_predicted(struct message *message, PyObject *list, enum column column) {
    int64_t *last = message->rows->columns[column];
    const int64_t *steps = steps_of(message, column);
    uint64_t digest = 0;
    size_t followed = follow(message, list, last, steps, &digest);
    if (followed < message->keys.n) {
        while (followed-- > 0) {
            uint32_t slot = message->keys.at[followed];
            last[slot] = (int64_t)((uint64_t)last[slot] - (uint64_t)steps[slot]);
        }
        return false;
    }
    pack_byte(&message->out, 0);
    message->digest += rows_digest_column(column, digest);
    return true;
}

/* Whether KEYS are an order that both ends remember. That was a dict's, so no key comes twice, and
 * a column that is as predicted can be compared and stored in one pass. */
static bool is_known_order(const struct message *message) {
    return message->keys_place >= 0;
}

enum fit columns_put(struct message *message, PyObject *value, enum field_kind kind) {
    enum column column = column_of(kind);
    struct ints *actual = &message->scratch.actual, *predicted = &message->scratch.predicted;
    size_t n = message->keys.n;
    if (!PyList_CheckExact(value) || (size_t)PyList_GET_SIZE(value) != n || n == 0)
        return UNFIT;
    if (is_known_order(message) && put_predicted(message, value, column))
        return FITS;
    if (!numbers_reserve(actual, n) || !numbers_reserve(predicted, n))
        return FAILED;
    if (!numbers_of(value, actual->at, (Py_ssize_t)n))
        return UNFIT;
    predict(message, predicted->at, column);
    pack_changes(&message->out, predicted->at, actual->at, n);
    take_changes(message, column);
    return FITS;
}

static PyObject *get_predicted(struct message *message, enum column column) {
    int64_t *last = message->rows->columns[column];
    const int64_t *steps = steps_of(message, column);
    const uint32_t *slots = message->keys.at;
    Py_ssize_t n = (Py_ssize_t)message->keys.n;
    struct shared_ints *ints = &message->module->ints;
    PyObject *const *shared = ints->at; /* may be NULL */
    uint64_t digest = 0;
    PyObject *list = PyList_New(n), *number = list;
    for (Py_ssize_t i = 0; i < n && number; i++) {
        uint32_t slot = slots[i];
        int64_t value = next_value(last, steps, slot);
        last[slot] = value;
        digest += rows_digest_cell(slot, value);
        /* As in number_object(), but with its table read once. */
        if (shared && (uint64_t)value < N_SHARED_INTS && shared[value])
            number = Py_NewRef(shared[value]);
        else
            number = number_object(ints, value);
        PyList_SET_ITEM(list, i, number);
    }
    if (!number)
        Py_CLEAR(list);
    message->digest += rows_digest_column(column, digest);
    return list;
}

PyObject *columns_get(struct message *message, enum field_kind kind) {
    enum column column = column_of(kind);
    struct ints *actual = &message->scratch.actual;
    size_t n = message->keys.n;
    if (is_known_order(message) && message->in.at < message->in.end && *message->in.at == 0) {
        message->in.at++;
        return get_predicted(message, column);
    }
    if (!numbers_reserve(actual, n))
        return NULL;
    predict(message, actual->at, column);
    unpack_changes(&message->in, actual->at, n);
    if (message->in.bad)
        return NULL;
    take_changes(message, column);
    return numbers_list(&message->module->ints, actual->at, n);
}
