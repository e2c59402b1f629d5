#include <stdlib.h>

#include "delta/order.h"

/* A str caches its hash. */
static Py_hash_t hash_of(PyObject *text) {
    Py_hash_t hash = ((PyASCIIObject *)text)->hash;
    return hash != -1 ? hash : PyObject_Hash(text);
}

/* The entry with a key's place, or the free one where it belongs. */
static uint32_t *entry_of(const struct places *places, PyObject *key) {
    Py_hash_t hash = hash_of(key);
    for (size_t at = (size_t)hash & places->mask;; at = (at + 1) & places->mask) {
        uint32_t *entry = &places->table[at];
        if (*entry == NO_PLACE)
            return entry;
        PyObject *there = PyList_GET_ITEM(places->scheduled, (Py_ssize_t)*entry);
        if (there == key || (hash_of(there) == hash && PyUnicode_Compare(there, key) == 0))
            return entry;
    }
}

bool places_own(struct places *places) {
    if (places->own)
        return true;
    places->own = PyList_GetSlice(places->scheduled, 0, PyList_GET_SIZE(places->scheduled));
    if (places->own)
        places->scheduled = places->own;
    return places->own != NULL;
}

/* Every reply with a new order makes this table, and a dict would take several times as long. At
 * least half of the table is free. */
bool places_make(struct places *places) {
    size_t size = 16;
    if (places->table)
        return true;
    if (!places_own(places))
        return false;
    Py_ssize_t n = PyList_GET_SIZE(places->scheduled);
    while (size < 2 * (size_t)n)
        size *= 2;
    places->table = malloc(size * sizeof *places->table);
    if (!places->table)
        return PyErr_NoMemory();
    memset(places->table, 0xFF, size * sizeof *places->table);
    places->mask = size - 1;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyList_GET_ITEM(places->scheduled, i);
        if (PyUnicode_CheckExact(key))
            *entry_of(places, key) = (uint32_t)i;
    }
    return true;
}

uint32_t places_of(const struct places *places, PyObject *key) {
    return PyUnicode_CheckExact(key) ? *entry_of(places, key) : NO_PLACE;
}

void places_free(struct places *places) {
    free(places->table);
    Py_CLEAR(places->own);
}
