#include "ring/segment.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring/layout.h"

int segment_check_size(int fd, uint64_t bytes) {
    struct stat segment;
    if (fstat(fd, &segment) != 0)
        return errno;
    return (uint64_t)segment.st_size < bytes ? EPROTO : 0;
}

int segment_map_new(int fd, size_t bytes, uint64_t needed, void **memory) {
    int error = segment_check_size(fd, needed);
    if (error)
        return error;
    *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return *memory == MAP_FAILED ? errno : 0;
}

int segment_read_about(int fd, void *about, size_t bytes, uint64_t magic) {
    struct {
        uint64_t magic;
        uint32_t version;
    } start;
    int error = segment_check_size(fd, bytes);
    if (error)
        return error;
    if (pread(fd, about, bytes, 0) != (ssize_t)bytes)
        return EPROTO;
    memcpy(&start, about, sizeof start);
    return start.magic == magic && start.version == LAYOUT_VERSION ? 0 : EPROTO;
}
