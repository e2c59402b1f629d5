#include "delta/columns.h"

/* KEYS are a remembered order, which was a dict's: no key comes twice, and a column that is as
 * predicted may be read and written in one go. */
static bool is_known_order(const struct message *message) {
    return message->keys_place >= 0;
}

/* What a row's value is predicted to be. */
static inline int64_t next_value(const int64_t *last, const int64_t *steps, uint32_t slot) {
    return (int64_t)((uint64_t)last[slot] + (uint64_t)steps[slot]);
}

/* A column's predicted values. */
static void predict(const struct message *message, int64_t *values, enum column column,
                    enum column step_column) {
    const int64_t *last = message->rows->columns[column];
    const int64_t *steps = message->rows->columns[step_column];
    for (size_t i = 0; i < message->keys.n; i++)
        values[i] = next_value(last, steps, message->keys.at[i]);
}

/* A column's new values, in message->scratch.actual. */
static void take_changes(struct message *message, enum column column) {
    int64_t *last = message->rows->columns[column];
    int64_t *steps = message->rows->columns[COLUMN_TREND_STEP];
    uint64_t digest = 0;
    for (size_t i = 0; i < message->keys.n; i++) {
        uint32_t slot = message->keys.at[i];
        int64_t value = message->scratch.actual.at[i];
        if (column == COLUMN_TREND)
            steps[slot] = (int64_t)((uint64_t)value - (uint64_t)last[slot]);
        last[slot] = value;
        digest += rows_digest_cell(slot, value);
    }
    message->digest += rows_digest_column(column, digest);
}

/* Each row goes on by its step for as long as the list says so: for how many it does. */
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

/* All of a column as predicted, in one go: the encoder's innermost loop. If it is not, nothing has
 * changed. */
static bool put_predicted(struct message *message, PyObject *list, enum column column,
                          const int64_t *steps) {
    int64_t *last = message->rows->columns[column];
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

static enum fit put_column(struct message *message, PyObject *value, enum column column,
                           enum column step_column) {
    size_t n = message->keys.n;
    if (!PyList_CheckExact(value) || (size_t)PyList_GET_SIZE(value) != n || n == 0)
        return UNFIT;
    if (is_known_order(message) &&
        put_predicted(message, value, column, message->rows->columns[step_column]))
        return FITS;
    if (!numbers_reserve(&message->scratch.actual, n) ||
        !numbers_reserve(&message->scratch.predicted, n))
        return FAILED;
    if (!numbers_of(value, message->scratch.actual.at, (Py_ssize_t)n))
        return UNFIT;
    predict(message, message->scratch.predicted.at, column, step_column);
    pack_changes(&message->out, message->scratch.predicted.at, message->scratch.actual.at, n);
    take_changes(message, column);
    return FITS;
}

static enum fit put_progress(struct message *message, PyObject *value) {
    return put_column(message, value, COLUMN_PROGRESS, COLUMN_COUNT);
}

static enum fit put_trend(struct message *message, PyObject *value) {
    return put_column(message, value, COLUMN_TREND, COLUMN_TREND_STEP);
}

/* A column of which all is as predicted: each of its rows goes on by its message. */
static PyObject *get_predicted(struct message *message, enum column column, const int64_t *steps) {
    int64_t *last = message->rows->columns[column];
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
        /* As number_object() does it, whose table is looked up once. */
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

static PyObject *get_column(struct message *message, enum column column, enum column step_column) {
    size_t n = message->keys.n;
    if (is_known_order(message) && message->in.at < message->in.end && *message->in.at == 0) {
        message->in.at++;
        return get_predicted(message, column, message->rows->columns[step_column]);
    }
    if (!numbers_reserve(&message->scratch.actual, n))
        return NULL;
    predict(message, message->scratch.actual.at, column, step_column);
    unpack_changes(&message->in, message->scratch.actual.at, n);
    if (message->in.bad)
        return NULL;
    take_changes(message, column);
    return numbers_list(&message->module->ints, message->scratch.actual.at, n);
}

static PyObject *get_progress(struct message *message) {
    return get_column(message, COLUMN_PROGRESS, COLUMN_COUNT);
}

static PyObject *get_trend(struct message *message) {
    return get_column(message, COLUMN_TREND, COLUMN_TREND_STEP);
}

const struct codec columns_codec_progress = {put_progress, get_progress};
const struct codec columns_codec_trend = {put_trend, get_trend};
