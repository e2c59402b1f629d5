#include "delta/rows.h"

#include <stdlib.h>
#include <string.h>

bool rows_resize_slots(struct slots *slots, size_t n) {
    return slots_resize(slots, n) || PyErr_NoMemory();
}

bool rows_copy_slots(struct slots *to, const struct slots *from) {
    return slots_copy(to, from) || PyErr_NoMemory();
}

bool rows_open(struct rows *rows) {
    *rows = (struct rows){.slot_of = PyDict_New(), .epoch = 1};
    for (int i = 0; i < N_ORDERS; i++) {
        rows->orders[i] = PyMem_Calloc(1, sizeof *rows->orders[i]);
        if (!rows->orders[i])
            PyErr_NoMemory();
    }
    return rows->slot_of && !PyErr_Occurred();
}

static void order_forget(struct order *order) {
    order->epoch = 0;
    Py_CLEAR(order->keys);
    Py_CLEAR(order->counts);
}

bool rows_reset(struct rows *rows) {
    PyObject *slot_of = PyDict_New();
    if (!slot_of)
        return false;
    extension_replace(&rows->slot_of, slot_of);
    for (size_t slot = 0; slot < rows->n_slots; slot++) {
        Py_CLEAR(rows->keys[slot]);
        rows->tokens[slot].n = 0;
    }
    rows->n_slots = 0;
    rows->free.n = 0;
    rows->epoch = 1;
    for (int i = 0; i < N_ORDERS; i++) {
        rows->orders[i]->slots.n = 0;
        order_forget(rows->orders[i]);
    }
    return true;
}

void rows_close(struct rows *rows) {
    for (size_t slot = 0; slot < rows->capacity; slot++) {
        Py_XDECREF(rows->keys[slot]);
        slots_free(&rows->tokens[slot]);
    }
    for (int i = 0; i < N_ORDERS; i++) {
        if (!rows->orders[i])
            continue;
        order_forget(rows->orders[i]);
        slots_free(&rows->orders[i]->slots);
        PyMem_Free(rows->orders[i]);
    }
    for (int column = 0; column < N_COLUMNS; column++)
        free(rows->columns[column]);
    free(rows->keys);
    free(rows->tokens);
    slots_free(&rows->free);
    Py_CLEAR(rows->slot_of);
    *rows = (struct rows){0};
}

static bool grow_array(void *array, size_t old, size_t new, size_t size) {
    void **place = array;
    char *grown = realloc(*place, new * size);
    if (!grown)
        return false;
    memset(grown + old * size, 0, (new - old) * size);
    *place = grown;
    return true;
}

static bool grow(struct rows *rows) {
    size_t old = rows->capacity, new = old ? 2 * old : 64;
    bool grown = grow_array(&rows->keys, old, new, sizeof *rows->keys) &&
                 grow_array(&rows->tokens, old, new, sizeof *rows->tokens);
    for (int column = 0; column < N_COLUMNS; column++)
        grown = grown && grow_array(&rows->columns[column], old, new, sizeof(int64_t));
    if (grown)
        rows->capacity = new;
    else
        PyErr_NoMemory();
    return grown;
}

int64_t rows_find(const struct rows *rows, PyObject *key) {
    PyObject *slot = PyDict_GetItemWithError(rows->slot_of, key);
    return slot ? PyLong_AsLongLong(slot) : PyErr_Occurred() ? -2 : -1;
}

int64_t rows_add(struct rows *rows, PyObject *key) {
    bool reuses = rows->free.n > 0;
    if (!reuses && rows->n_slots == rows->capacity && !grow(rows))
        return -1;
    size_t slot = reuses ? rows->free.at[rows->free.n - 1] : rows->n_slots;
    PyObject *number = PyLong_FromSize_t(slot);
    if (!number || PyDict_SetItem(rows->slot_of, key, number) != 0) {
        Py_XDECREF(number);
        return -1;
    }
    Py_DECREF(number);
    if (reuses)
        rows->free.n--;
    else
        rows->n_slots++;
    rows->keys[slot] = Py_NewRef(key);
    for (int column = 0; column < N_COLUMNS; column++)
        rows->columns[column][slot] = 0;
    /* A request has one output token more after the step with its whole prompt. */
    rows->columns[COLUMN_TREND_STEP][slot] = 1;
    return (int64_t)slot;
}

bool rows_end(struct rows *rows, uint32_t slot) {
    if (!rows->keys[slot])
        return true; /* it was named twice */
    size_t n = rows->free.n;
    if (!rows_resize_slots(&rows->free, n + 1))
        return false;
    if (PyDict_DelItem(rows->slot_of, rows->keys[slot]) != 0) {
        rows->free.n = n;
        return false;
    }
    rows->free.at[n] = slot;
    Py_CLEAR(rows->keys[slot]);
    slots_free(&rows->tokens[slot]);
    /* Another row will have the slot, and the orders' objects have the old row's key. */
    for (int i = 0; i < N_ORDERS; i++)
        order_forget(rows->orders[i]);
    return true;
}

bool rows_alive(const struct rows *rows, const struct slots *slots) {
    for (size_t i = 0; i < slots->n; i++)
        if (!rows_key(rows, slots->at[i]))
            return false;
    return true;
}

PyObject *rows_keys(const struct rows *rows, const struct slots *slots) {
    PyObject *list = PyList_New((Py_ssize_t)slots->n);
    for (size_t i = 0; list && i < slots->n; i++)
        PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef(rows->keys[slots->at[i]]));
    return list;
}

struct order *rows_remember(struct rows *rows, const struct slots *slots, int place) {
    bool is_new = place < 0;
    if (is_new)
        place = N_ORDERS - 1;
    struct order *order = rows->orders[place];
    if (is_new) {
        order_forget(order);
        if (!rows_copy_slots(&order->slots, slots))
            return NULL;
    }
    memmove(&rows->orders[1], &rows->orders[0], (size_t)place * sizeof rows->orders[0]);
    rows->orders[0] = order;
    if (!order->keys && !(order->keys = rows_keys(rows, &order->slots)))
        return NULL;
    return order;
}
