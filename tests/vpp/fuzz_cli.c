/*
 * Fuzz target of the command line. An input is text, a command of ours per line, as in `lb rl vip 10.0.0.1 port 80`; the
 * line `step` lets time pass. The command's own function is called with what follows its path: VPP's dispatcher would go on
 * to run any command that follows ours.
 *
 * What is refused has changed nothing, what makes a change was read to its end, and `show` tells every VIP.
 */
#include "fuzz.h"

#define LINES_MAX 32u

static u8 *output; /* of the command at hand */

static void collect(uword argument, u8 *bytes, uword size)
{
    vec_add(output, bytes, size);
}

static bool is_ours(const u8 *path)
{
    static const char *const words[] = {"lb rl ", "show lb rl ", "clear lb rl "};
    for (u32 i = 0; i < ARRAY_LEN(words); i++) {
        size_t size = strlen(words[i]);
        if (vec_len(path) > size && clib_memcmp(path, words[i], size) == 0) {
            return true;
        }
    }
    return false;
}

static bool begins(const u8 *line, size_t size, const u8 *path)
{
    size_t length = vec_len(path);
    return size >= length && clib_memcmp(line, path, length) == 0 &&
           (size == length || line[length] == ' ' || line[length] == '\t');
}

static vlib_cli_command_t *command_of(const u8 *line, size_t size)
{
    vlib_cli_command_t *command;
    vec_foreach(command, vlib_get_global_main()->cli_main.commands)
    {
        if (command->function != NULL && is_ours((const u8 *)command->path) &&
            begins(line, size, (const u8 *)command->path)) {
            return command;
        }
    }
    return NULL;
}

/* Calls a command as VPP's dispatcher does. True unless it refused. */
static bool call(vlib_main_t *vm, vlib_cli_command_t *command, const u8 *text, size_t size)
{
    unformat_input_t input;
    vlib_process_t *process = vlib_get_current_process(vm);
    vec_reset_length(output);
    process->output_function = collect;
    unformat_init_string(&input, (const char *)text, (int)size);
    unformat_skip_white_space(&input);
    clib_error_t *error = command->function(vm, &input, command);
    bool good = error == NULL;
    bool looks =
        command->path[0] != 'l'; /* show, clear: VPP says itself what it cannot read behind them */
    FUZZ_CHECK(looks || !good || unformat_check_input(&input) == UNFORMAT_END_OF_INPUT);
    FUZZ_CHECK(good || vec_len(error->what) > 0);
    clib_error_free(error);
    unformat_free(&input);
    process->output_function = NULL;
    return good;
}

static bool run_line(vlib_main_t *vm, const u8 *line, size_t size)
{
    if (size == 4 && clib_memcmp(line, "step", 4) == 0) {
        fuzz_step(vm);
        return true;
    }
    vlib_cli_command_t *command = command_of(line, size);
    if (command == NULL) {
        return false;
    }
    size_t used = vec_len(command->path);
    u8 *before = fuzz_state();
    if (call(vm, command, line + used, size - used)) {
        vec_free(before);
    } else {
        fuzz_check_unchanged(before);
    }
    return true;
}

static void check_shown(vlib_main_t *vm)
{
    static const u8 show[] = "show lb rl vips";
    if (lb_rl_main.io == NULL) {
        return;
    }
    FUZZ_CHECK(call(vm, command_of(show, sizeof(show) - 1), NULL, 0));
    vec_add1(output, '\0');
    u64 *ids = lb_rl_vip_ids();
    for (u32 i = 0; i < vec_len(ids); i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), " id %016llx,", (unsigned long long)ids[i]);
        FUZZ_CHECK(strstr((const char *)output, id) != NULL);
    }
    vec_free(ids);
}

int fuzz_cli(vlib_main_t *vm, const u8 *data, size_t size)
{
    u32 lines = 0;
    while (size > 0 && lines < LINES_MAX) {
        const u8 *end = memchr(data, '\n', size);
        size_t length = end != NULL ? (size_t)(end - data) : size;
        lines += run_line(vm, data, length);
        size -= end != NULL ? length + 1 : length;
        data += end != NULL ? length + 1 : length;
    }
    check_shown(vm);
    return lines > 0 ? 0 : -1;
}
