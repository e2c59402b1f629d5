/* Runs the sides of a scene as threads of one process, or as a process each. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "scene.h"

struct thread {
    pthread_t id;
    struct scene *scene;
    struct rings *rings;
    uint32_t rank;
};

static void *run_engine_thread(void *argument) {
    struct thread *thread = argument;
    engine_run(thread->scene, thread->rings);
    return NULL;
}

static void *run_rank_thread(void *argument) {
    struct thread *thread = argument;
    rank_run(thread->scene, thread->rings, thread->rank);
    return NULL;
}

static void start(struct thread *thread, void *(*run)(void *)) {
    if (pthread_create(&thread->id, NULL, run, thread) != 0)
        side_fails("threads", "can't start a thread");
}

void scene_bury(const struct scene *scene, struct rings *rings, uint32_t rank) {
    if (!scene->options.kill_at || rank != 0)
        return;
    ring_poison(&rings->replies[rank], POISON_CODE, (int32_t)rank);
    let_others_sleep();
    ring_mark_dead(&rings->request, rank);
}

/* All threads share one mapping: ThreadSanitizer knows memory by its address. */
static void run_threads(struct scene *scene) {
    static struct rings rings;
    static struct thread engine, ranks[RING_MAX_READERS];
    scene_map(scene, &rings);
    engine = (struct thread){.scene = scene, .rings = &rings};
    start(&engine, run_engine_thread);
    for (uint32_t rank = 0; rank < scene->options.n_readers; rank++) {
        ranks[rank] = (struct thread){.scene = scene, .rings = &rings, .rank = rank};
        start(&ranks[rank], run_rank_thread);
    }
    for (uint32_t rank = 0; rank < scene->options.n_readers; rank++) {
        pthread_join(ranks[rank].id, NULL);
        scene_bury(scene, &rings, rank);
    }
    pthread_join(engine.id, NULL);
}

static void run_process(struct scene *scene, uint32_t number) {
    static struct rings rings;
    scene_map(scene, &rings);
    if (number == 0)
        engine_run(scene, &rings);
    else
        rank_run(scene, &rings, number - 1);
}

uint32_t scene_n_processes(const struct scene *scene) {
    return scene->options.processes ? scene->options.n_readers + 1 : 1;
}

pid_t scene_start_process(struct scene *scene, uint32_t number) {
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        side_fails("parent", "can't fork: %m");
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    if (scene->options.processes)
        run_process(scene, number);
    else
        run_threads(scene);
    exit(0); /* with the sanitizers' last checks */
}
