/* A plugin of QEMU: the instructions executed between two places of the firmware, and all of them for the longest stretch.
 *
 * Arguments: out=FILE, one window=NAME:START:END[:END...] per window, one handler=ADDRESS per interrupt handler, addresses in
 * hexadecimal. A window opens when START is about to run and closes when one of its ENDs is. Interrupts in between do not
 * belong to it: an emulated UART hands over its bytes as fast as the machine under it, a wire does so at its baud rate. They
 * are counted on their own, each from its handler's first instruction to its return. FILE gets, when QEMU ends, for each
 * window in order and then for the interrupts: u32 number of stretches, their lengths (u32 each), u32 length of the longest,
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
#define HANDLERS 16u
#define LEVELS 8u /* of interrupts within interrupts, the thread's own included */
#define STRETCH (1u << 22) /* instructions; a longer one is cut, and its length says so */

typedef uint64_t plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id_t id, void (*translated)(plugin_id_t, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);
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

static void append(window_t *window, uint32_t pc)
{
    if (window->length < STRETCH) {
        window->stretch[window->length] = pc;
        window->length++;
    }
}

/* ---- interrupts ---- */

enum { PLAIN, CALL, RETURN };

typedef struct {
    uint32_t pc;
    uint32_t next; /* behind it: where it goes on unless it branches */
    int kind;
    bool border;
    bool handler;
} mark_t;

static uint32_t handlers[HANDLERS];
static uint32_t handler_count;
static window_t interrupts;
static uint32_t level;          /* 0: the thread runs */
static uint32_t calls[LEVELS];  /* open ones within the handler of each level */
static const mark_t *branch;    /* call or return that was just executed in an interrupt, taken or not */

static bool handles_at(uint32_t pc)
{
    bool found = false;
    for (uint32_t i = 0u; i < handler_count; i++) {
        found = found || (handlers[i] == pc);
    }
    return found;
}

/* BL and BLX, or what takes the program counter from the link register or the stack. */
static int kind_of(struct qemu_plugin_insn *instruction)
{
    uint16_t half[2] = {0u, 0u};
    const size_t size = qemu_plugin_insn_size(instruction);
    memcpy(half, qemu_plugin_insn_data(instruction), (size < sizeof half) ? size : sizeof half);
    if (size == 2u) {
        const bool blx = (half[0] & 0xFF87u) == 0x4780u;
        const bool out = (half[0] == 0x4770u) || ((half[0] & 0xFF00u) == 0xBD00u);
        return blx ? CALL : (out ? RETURN : PLAIN);
    }
    const bool bl = ((half[0] & 0xF800u) == 0xF000u) && ((half[1] & 0xD000u) == 0xD000u);
    const bool pop = ((half[0] == 0xE8BDu) && ((half[1] & 0x8000u) != 0u)) || ((half[0] == 0xF85Du) && (half[1] == 0xFB04u));
    return bl ? CALL : (pop ? RETURN : PLAIN);
}

/* What the last call or return of an interrupt did is seen from where it led. */
static void settle(uint32_t pc)
{
    if ((branch != NULL) && (pc != branch->next)) {
        if (branch->kind == CALL) {
            calls[level]++;
        } else if (calls[level] > 0u) {
            calls[level]--;
        } else {
            level--;
            if (level == 0u) {
                close_window(&interrupts);
            }
        }
    }
    branch = NULL;
}

static void enter(void)
{
    if (level == 0u) {
        interrupts.length = 0u;
    }
    if (level < (LEVELS - 1u)) {
        level++;
        calls[level] = 0u;
    }
}

/* ---- every instruction ---- */

static void cross(uint32_t pc)
{
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
}

static void executed(unsigned cpu, void *data)
{
    (void)cpu;
    const mark_t *mark = data;
    settle(mark->pc);
    if (mark->handler) {
        enter();
    }
    if (level > 0u) {
        append(&interrupts, mark->pc);
        branch = (mark->kind == PLAIN) ? NULL : mark;
        return;
    }
    if (mark->border) {
        cross(mark->pc);
    }
    for (uint32_t i = 0u; i < window_count; i++) {
        if (windows[i].open) {
            append(&windows[i], mark->pc);
        }
    }
}

static void translated(plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    const size_t count = qemu_plugin_tb_n_insns(block);
    for (size_t k = 0u; k < count; k++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, k);
        const uint32_t pc = (uint32_t)qemu_plugin_insn_vaddr(instruction);
        mark_t *mark = grow(NULL, sizeof *mark); /* QEMU keeps what it translated until it ends */
        mark->pc = pc;
        mark->next = pc + (uint32_t)qemu_plugin_insn_size(instruction);
        mark->kind = kind_of(instruction);
        mark->handler = handles_at(pc);
        mark->border = false;
        for (uint32_t i = 0u; i < window_count; i++) {
            mark->border = mark->border || (windows[i].start == pc) || ends_at(&windows[i], pc);
        }
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed, 0, mark);
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
    for (uint32_t i = 0u; i <= window_count; i++) {
        const window_t *window = (i < window_count) ? &windows[i] : &interrupts;
        write_words(window->lengths, window->count, file);
        write_words(window->longest, window->longest_length, file);
    }
    (void)fclose(file);
}

static void make_room(window_t *window)
{
    window->stretch = grow(NULL, STRETCH * sizeof window->stretch[0]);
    window->longest = grow(NULL, STRETCH * sizeof window->longest[0]);
}

static bool take_handler(const char *text)
{
    char *next = NULL;
    if (handler_count == HANDLERS) {
        return false;
    }
    handlers[handler_count] = (uint32_t)strtoul(text, &next, 16);
    handler_count++;
    return (next != text) && (*next == '\0');
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
    make_room(window);
    window_count++;
    return (*next == '\0') && (window->end_count > 0u);
}

PUBLIC int qemu_plugin_install(plugin_id_t id, const void *about, int count, char **arguments)
{
    (void)about;
    make_room(&interrupts);
    for (int i = 0; i < count; i++) {
        if (strncmp(arguments[i], "out=", 4u) == 0) {
            out_path = strdup(&arguments[i][4]);
        } else if (!((strncmp(arguments[i], "window=", 7u) == 0) && take_window(&arguments[i][7])) &&
                   !((strncmp(arguments[i], "handler=", 8u) == 0) && take_handler(&arguments[i][8]))) {
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
