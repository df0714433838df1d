/* A plugin of QEMU: the instructions executed between two places of the firmware, and all of them for the longest stretch.
 *
 * Arguments: out=FILE, then one window=NAME:START:END[:END...] per window, addresses in hexadecimal. A window opens when START
 * is about to run and closes when one of its ENDs is; interrupts in between belong to it, as on the real processor. FILE gets,
 * when QEMU ends and for each window in order: u32 number of stretches, their lengths (u32 each), u32 length of the longest,
 * its program counters (u32 each). The host's byte order.
 *
 * QEMU's header is not installed by Debian; declared here is what its documentation names (docs/devel/tcg-plugins). */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))
#define WINDOWS 8u
#define ENDS 8u
#define STRETCH (1u << 22) /* instructions; a longer one is cut, and its length says so */

typedef uint64_t plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id_t id, void (*translated)(plugin_id_t, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction, void (*executed)(unsigned, void *),
                                            int registers, void *data);
void qemu_plugin_register_atexit_cb(plugin_id_t id, void (*ended)(plugin_id_t, void *), void *data);

PUBLIC int qemu_plugin_version = API_VERSION;
PUBLIC int qemu_plugin_install(plugin_id_t id, const void *about, int count, char **arguments);

typedef struct {
    uint32_t start;
    uint32_t ends[ENDS];
    uint32_t end_count;
    bool open;
    uint32_t *stretch; /* the one that is going on */
    uint32_t length;
    uint32_t *longest;
    uint32_t longest_length;
    uint32_t *lengths;
    uint32_t count;
    uint32_t room;
} window_t;

static window_t windows[WINDOWS];
static uint32_t window_count;
static const char *out_path;

static void *grow(void *old, size_t bytes)
{
    void *fresh = realloc(old, bytes);
    if (fresh == NULL) {
        fprintf(stderr, "windows: no memory\n");
        exit(1);
    }
    return fresh;
}

static void close_window(window_t *window)
{
    if (window->count == window->room) {
        window->room = (window->room == 0u) ? 4096u : (window->room * 2u);
        window->lengths = grow(window->lengths, window->room * sizeof window->lengths[0]);
    }
    window->lengths[window->count] = window->length;
    window->count++;
    if (window->length > window->longest_length) {
        uint32_t *swap = window->longest;
        window->longest = window->stretch;
        window->longest_length = window->length;
        window->stretch = swap;
    }
    window->open = false;
}

static bool ends_at(const window_t *window, uint32_t pc)
{
    bool found = false;
    for (uint32_t i = 0u; i < window->end_count; i++) {
        found = found || (window->ends[i] == pc);
    }
    return found;
}

static void record(uint32_t pc)
{
    for (uint32_t i = 0u; i < window_count; i++) {
        window_t *window = &windows[i];
        if (window->open && (window->length < STRETCH)) {
            window->stretch[window->length] = pc;
            window->length++;
        }
    }
}

static void executed(unsigned cpu, void *data)
{
    (void)cpu;
    record((uint32_t)(uintptr_t)data);
}

static void executed_at_border(unsigned cpu, void *data)
{
    (void)cpu;
    const uint32_t pc = (uint32_t)(uintptr_t)data;
    for (uint32_t i = 0u; i < window_count; i++) {
        window_t *window = &windows[i];
        if (window->open && ends_at(window, pc)) {
            close_window(window);
        }
        if (!window->open && (window->start == pc)) {
            window->open = true;
            window->length = 0u;
        }
    }
    record(pc);
}

static void translated(plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    const size_t count = qemu_plugin_tb_n_insns(block);
    for (size_t k = 0u; k < count; k++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, k);
        const uint32_t pc = (uint32_t)qemu_plugin_insn_vaddr(instruction);
        bool border = false;
        for (uint32_t i = 0u; i < window_count; i++) {
            border = border || (windows[i].start == pc) || ends_at(&windows[i], pc);
        }
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, border ? executed_at_border : executed, 0, (void *)(uintptr_t)pc);
    }
}

static void write_words(const uint32_t *words, uint32_t count, FILE *file)
{
    (void)fwrite(&count, sizeof count, 1u, file);
    if (count > 0u) {
        (void)fwrite(words, sizeof words[0], count, file);
    }
}

static void ended(plugin_id_t id, void *data)
{
    (void)id;
    (void)data;
    FILE *file = fopen(out_path, "wb");
    if (file == NULL) {
        fprintf(stderr, "windows: cannot write %s\n", out_path);
        return;
    }
    for (uint32_t i = 0u; i < window_count; i++) {
        write_words(windows[i].lengths, windows[i].count, file);
        write_words(windows[i].longest, windows[i].longest_length, file);
    }
    (void)fclose(file);
}

static bool take_window(const char *text)
{
    const char *at = strchr(text, ':');
    if ((at == NULL) || (window_count == WINDOWS)) {
        return false;
    }
    window_t *window = &windows[window_count];
    char *next = NULL;
    window->start = (uint32_t)strtoul(at + 1, &next, 16);
    while ((*next == ':') && (window->end_count < ENDS)) {
        window->ends[window->end_count] = (uint32_t)strtoul(next + 1, &next, 16);
        window->end_count++;
    }
    window->stretch = grow(NULL, STRETCH * sizeof window->stretch[0]);
    window->longest = grow(NULL, STRETCH * sizeof window->longest[0]);
    window_count++;
    return (*next == '\0') && (window->end_count > 0u);
}

PUBLIC int qemu_plugin_install(plugin_id_t id, const void *about, int count, char **arguments)
{
    (void)about;
    for (int i = 0; i < count; i++) {
        if (strncmp(arguments[i], "out=", 4u) == 0) {
            out_path = strdup(&arguments[i][4]);
        } else if ((strncmp(arguments[i], "window=", 7u) != 0) || !take_window(&arguments[i][7])) {
            fprintf(stderr, "windows: bad argument %s\n", arguments[i]);
            return -1;
        }
    }
    if (out_path == NULL) {
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
