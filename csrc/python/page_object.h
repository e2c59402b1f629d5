/* StatusPage and StatusLine: what each rank is doing, for reports and monitoring. */
#ifndef MPSPMD_PYTHON_PAGE_OBJECT_H
#define MPSPMD_PYTHON_PAGE_OBJECT_H

#include "extension/extension.h"
#include "run/recorder.h"
#include "run/status.h"

struct page_object {
    PyObject_HEAD
    struct status status;
    unsigned generation;
};

struct line_object {
    PyObject_HEAD
    struct page_object *owner;
    struct status_line *line;
    struct track *track; /* NULL: nothing is recorded */
    PyObject *track_owner;
};

/* False, with an exception set, in a forked child and for a read-only mapping. */
bool page_check_writable(struct page_object *page);

/* Shows what the rank does from now on, in its status line and in the recorder. With phase running,
 * `method` NULL leaves the name as it is. The page must be writable. */
void line_change(const struct line_object *self, enum status_phase phase, uint64_t step,
                 const char *method, size_t method_bytes);

/* The engine has sent a request. The page is writable. */
void page_note_sent(struct page_object *page, uint64_t step);

#endif
