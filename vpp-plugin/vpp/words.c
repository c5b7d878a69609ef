/* The words of the command line for what the core numbers, each stated once: people type them and read them. */
#include <vnet/ip/ip.h>

#include "lb_rl.h"

/* Names by number; numbers without one are NULL. */
#define WORDS(kind, ...)                                                                           \
    static const char *const kind##_words[] = {__VA_ARGS__};                                       \
    u8 *format_lb_rl_##kind(u8 *s, va_list *arguments)                                             \
    {                                                                                              \
        return format_word(s, va_arg(*arguments, u32), kind##_words, ARRAY_LEN(kind##_words));     \
    }                                                                                              \
    uword unformat_lb_rl_##kind(unformat_input_t *input, va_list *arguments)                       \
    {                                                                                              \
        return unformat_word(input, va_arg(*arguments, u8 *), kind##_words,                        \
                             ARRAY_LEN(kind##_words));                                             \
    }

static u8 *format_word(u8 *s, u32 value, const char *const *words, u32 count)
{
    return value < count && words[value] != NULL ? format(s, "%s", words[value])
                                                 : format(s, "%u?", value);
}

/* No word of a kind is the beginning of another. */
static uword unformat_word(unformat_input_t *input, u8 *value, const char *const *words, u32 count)
{
    for (u32 i = 0; i < count; i++) {
        if (words[i] != NULL && unformat(input, words[i])) {
            *value = (u8)i;
            return 1;
        }
    }
    return 0;
}

WORDS(protocol, [IP_PROTOCOL_TCP] = "tcp", [IP_PROTOCOL_UDP] = "udp")
WORDS(scheduler, [LBRL_SCHEDULER_MAGLEV] = "maglev", [LBRL_SCHEDULER_SED] = "sed",
      [LBRL_SCHEDULER_LSQ] = "lsq", [LBRL_SCHEDULER_ALIAS] = "alias", [LBRL_SCHEDULER_P2C] = "p2c")
WORDS(forwarding, [LBRL_FORWARD_NAT] = "nat", [LBRL_FORWARD_GRE] = "gre",
      [LBRL_FORWARD_L3DSR] = "l3dsr")
WORDS(refusal, [LBRL_REFUSE_REJECT] = "reject", [LBRL_REFUSE_DROP] = "drop")
WORDS(level, [LBRL_LEVEL_OFF] = "off", [LBRL_LEVEL_BASIC] = "basic", [LBRL_LEVEL_FULL] = "full")
WORDS(load, [LBRL_LOAD_OPEN] = "open", [LBRL_LOAD_ACTIVE] = "active")
WORDS(backend_state, [LBRL_BACKEND_ACTIVE] = "active", [LBRL_BACKEND_DRAINING] = "draining",
      [LBRL_BACKEND_FAILED] = "failed", [LBRL_BACKEND_UNREADY] = "unready")

u8 *format_lb_rl_flow_state(u8 *s, va_list *arguments)
{
    static const char *const words[] = {"free",         "syn",        "syn-ack",
                                        "established",  "closing",    "udp-new",
                                        "udp-exchange", "udp-stream", "udp-answered"};
    STATIC_ASSERT(ARRAY_LEN(words) == LBRL_FLOW_STATES, "a word per state");
    return format_word(s, va_arg(*arguments, u32), words, ARRAY_LEN(words));
}

/* ---- Timeouts ---- */

/* In the order of lbrl_timeouts_t. */
static const struct {
    const char *word;
    u32 offset;
} timeouts[] = {
#define X(field, word) {word, STRUCT_OFFSET_OF(lbrl_timeouts_t, field)}
    X(tcp_handshake, "tcp-handshake"),       X(tcp_established, "tcp-established"),
    X(tcp_closing, "tcp-closing"),           X(udp_unreplied, "udp-unreplied"),
    X(udp_exchange, "udp-exchange"),         X(udp_stream, "udp-stream"),
    X(udp_dns_answered, "udp-dns-answered"),
#undef X
};

STATIC_ASSERT(ARRAY_LEN(timeouts) * sizeof(u32) == sizeof(lbrl_timeouts_t), "a word per timeout");

static u32 *timeout_at(lbrl_timeouts_t *all, u32 index)
{
    return (u32 *)((u8 *)all + timeouts[index].offset);
}

u8 *format_lb_rl_timeouts(u8 *s, va_list *arguments)
{
    lbrl_timeouts_t all = *va_arg(*arguments, const lbrl_timeouts_t *);
    for (u32 i = 0; i < ARRAY_LEN(timeouts); i++) {
        s = format(s, "%s%s %.3f s", i == 0 ? "" : ", ", timeouts[i].word,
                   *timeout_at(&all, i) / 1e3);
    }
    return s;
}

uword unformat_lb_rl_timeout(unformat_input_t *input, va_list *arguments)
{
    lbrl_timeouts_t *all = va_arg(*arguments, lbrl_timeouts_t *);
    for (u32 i = 0; i < ARRAY_LEN(timeouts); i++) {
        if (unformat(input, timeouts[i].word)) {
            return unformat(input, "%U", unformat_lb_rl_milliseconds, timeout_at(all, i));
        }
    }
    return 0;
}
