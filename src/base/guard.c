/* The SIGBUS handler for mapped files. It runs between any two instructions, so it uses atomics
 * and system calls alone. */
#include "base/guard.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct guard_slot {
    _Atomic uintptr_t begin; /* 0: free, 1: being filled */
    _Atomic size_t size;
    _Atomic bool damaged;
} guard_slot;

static guard_slot guard_slots[TNI_GUARDS];
static struct sigaction guard_before;
static uintptr_t guard_page;

static guard_slot *guard_find(uintptr_t at) {
    for (int i = 0; i < TNI_GUARDS; i++) {
        uintptr_t begin = atomic_load(&guard_slots[i].begin);
        if (begin > 1 && at >= begin && at - begin < atomic_load(&guard_slots[i].size))
            return &guard_slots[i];
    }
    return NULL;
}

static bool guard_patch(uintptr_t at) {
    void *page = (void *)(at & ~(guard_page - 1));
    return mmap(page, guard_page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
           page;
}

/* What would have happened without us. With the default action the fault repeats and kills. */
static void guard_pass_on(int sig, siginfo_t *info, void *context) {
    if (guard_before.sa_flags & SA_SIGINFO)
        guard_before.sa_sigaction(sig, info, context);
    else if (guard_before.sa_handler != SIG_DFL && guard_before.sa_handler != SIG_IGN)
        guard_before.sa_handler(sig);
    else
        sigaction(SIGBUS, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
}

static void guard_fault(int sig, siginfo_t *info, void *context) {
    guard_slot *s = info->si_code == BUS_ADRERR ? guard_find((uintptr_t)info->si_addr) : NULL;
    if (s && guard_patch((uintptr_t)info->si_addr))
        atomic_store(&s->damaged, true);
    else
        guard_pass_on(sig, info, context);
}

static void guard_install(void) {
    struct sigaction a = {.sa_sigaction = guard_fault, .sa_flags = SA_SIGINFO | SA_RESTART};
    guard_page = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigaction(SIGBUS, &a, &guard_before);
}

int tni_guard_add(const void *begin, size_t size) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, guard_install);
    for (int i = 0; i < TNI_GUARDS; i++) {
        uintptr_t none = 0;
        if (!atomic_compare_exchange_strong(&guard_slots[i].begin, &none, 1)) continue;
        atomic_store(&guard_slots[i].size, size);
        atomic_store(&guard_slots[i].damaged, false);
        atomic_store(&guard_slots[i].begin, (uintptr_t)begin);
        return i;
    }
    return -1;
}

void tni_guard_remove(int guard) {
    if (guard >= 0) atomic_store(&guard_slots[guard].begin, 0);
}

bool tni_guard_damaged(int guard) { return guard >= 0 && atomic_load(&guard_slots[guard].damaged); }
