/*
 * Fuzz target of the binary API. An input is messages, for each
 *   1 byte   which: its low 5 bits, see `requests`; above them STRANGER: in the name of a client that does not exist
 *   2 bytes  how many bytes follow, little-endian
 * and those: the message after client index and context. A shorter message than its kind has is filled up with zeroes.
 * Messages take VPP's own way to their handlers, checks of length and conversions of byte order included; the client whose
 * name they bear is connected to VPP's socket, and reads what comes back.
 *
 * What is refused says why and has changed nothing; a VIP that is set is in force as it was said, and the same again
 * changes nothing; dumps tell all VIPs and sources.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <vlibmemory/api.h>
#include <vnet/ip/ip_types_api.h>

#include "lb_rl.api_enum.h"
#include "lb_rl.api_types.h"

enum { WHICH = 0x1f, STRANGER = 0x20, STEP = 15, MESSAGES_MAX = 24, SIZE_MAX_SENT = 1 << 16 };

#define NOBODY 0x80000063u /* a handle of a socket's client; so many there are not */

/* What all requests, and all replies but details and events, begin with. */
typedef struct __attribute__((packed)) request_header {
    u16 id;
    u32 client_index, context;
} request_header_t;

typedef struct __attribute__((packed)) reply_header {
    u16 id;
    u32 context;
    i32 retval;
    char message[448]; /* of those that have one */
} reply_header_t;

typedef enum kind { TEXT, PLAIN, DUMP } kind_t;

/* The answer's number is the next one. */
static const struct {
    u16 id;
    u16 size;
    kind_t kind;
} requests[] = {
    {VL_API_LB_RL_VIP_SET, sizeof(vl_api_lb_rl_vip_set_t), TEXT},
    {VL_API_LB_RL_VIP_REMOVE, sizeof(vl_api_lb_rl_vip_remove_t), TEXT},
    {VL_API_LB_RL_SOURCES_SET, sizeof(vl_api_lb_rl_sources_set_t), TEXT},
    {VL_API_LB_RL_NODE_SET, sizeof(vl_api_lb_rl_node_set_t), TEXT},
    {VL_API_LB_RL_AGENT_SET, sizeof(vl_api_lb_rl_agent_set_t), TEXT},
    {VL_API_LB_RL_ENABLE, sizeof(vl_api_lb_rl_enable_t), TEXT},
    {VL_API_LB_RL_DISABLE, sizeof(vl_api_lb_rl_disable_t), PLAIN},
    {VL_API_LB_RL_PUBLISH, sizeof(vl_api_lb_rl_publish_t), PLAIN},
    {VL_API_LB_RL_GET, sizeof(vl_api_lb_rl_get_t), PLAIN},
    {VL_API_LB_RL_STATS_GET, sizeof(vl_api_lb_rl_stats_get_t), PLAIN},
    {VL_API_WANT_LB_RL_EVENTS, sizeof(vl_api_want_lb_rl_events_t), PLAIN},
    {VL_API_LB_RL_SOURCE_DUMP, sizeof(vl_api_lb_rl_source_dump_t), DUMP},
    {VL_API_LB_RL_VIP_DUMP, sizeof(vl_api_lb_rl_vip_dump_t), DUMP},
    {VL_API_LB_RL_BACKEND_DUMP, sizeof(vl_api_lb_rl_backend_dump_t), DUMP},
    {VL_API_LB_RL_FLOW_GET, sizeof(vl_api_lb_rl_flow_get_t), PLAIN},
    [STEP] = {0}, /* not a message: lets time pass */
    {VL_API_LB_RL_NODE_GET, sizeof(vl_api_lb_rl_node_get_t), PLAIN},
    {VL_API_LB_RL_MEMORY_GET, sizeof(vl_api_lb_rl_memory_get_t), PLAIN},
    {VL_API_LB_RL_STATS_CLEAR, sizeof(vl_api_lb_rl_stats_clear_t), PLAIN},
};

STATIC_ASSERT(ARRAY_LEN(requests) <= WHICH + 1, "a number per message");

/* ---- The client ---- */

static int client = -1;
static u32 client_place; /* in VPP's pool of socket clients */

static void connect_client(vlib_main_t *vm)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/api.sock", fuzz_directory());
    client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    FUZZ_CHECK(client >= 0);
    FUZZ_CHECK(connect(client, (struct sockaddr *)&address, sizeof(address)) == 0);
    for (u32 tries = 0; tries < 1000; tries++) {
        const vl_api_registration_t *each;
        (void)vlib_process_suspend(vm, 1e-3);
        pool_foreach(each, socket_main.registration_pool)
        {
            if (each->registration_type == REGISTRATION_TYPE_SOCKET_SERVER) {
                client_place = (u32)(each - socket_main.registration_pool);
                return;
            }
        }
    }
    FUZZ_CHECK(!"VPP takes the client");
}

/* All that the client has been sent: a new vector. VPP keeps what the socket had no room for. */
static u8 *receive(void)
{
    static u8 piece[1 << 16];
    u8 *all = NULL;
    vl_api_registration_t *registration =
        pool_elt_at_index(socket_main.registration_pool, client_place);
    while (1) {
        ssize_t got = read(client, piece, sizeof(piece));
        if (got > 0) {
            vec_add(all, piece, (size_t)got);
            continue;
        }
        FUZZ_CHECK(got < 0 && errno == EAGAIN);
        if (vec_len(registration->output_vector) == 0) {
            return all;
        }
        (void)clib_file_write(vl_api_registration_file(registration));
    }
}

/* ---- Answers ---- */

typedef struct answers {
    u32 count;  /* of the kind that was asked for */
    u32 retval; /* of the last */
} answers_t;

static void check_reply(const reply_header_t *reply, u32 size, kind_t kind, answers_t *answers)
{
    if (kind == DUMP) {
        return;
    }
    answers->retval = clib_net_to_host_u32((u32)reply->retval);
    if (kind == TEXT) {
        FUZZ_CHECK(size == sizeof(*reply));
        FUZZ_CHECK(memchr(reply->message, '\0', sizeof(reply->message)) != NULL);
        FUZZ_CHECK((reply->message[0] != '\0') == (answers->retval != 0));
    }
}

static answers_t read_answers(u16 id, u32 context, kind_t kind)
{
    answers_t answers = {0};
    u8 *all = receive();
    for (u32 at = 0; at < vec_len(all);) {
        msgbuf_t header;
        FUZZ_CHECK(at + sizeof(header) <= vec_len(all));
        clib_memcpy(&header, all + at, sizeof(header));
        u32 size = clib_net_to_host_u32(header.data_len);
        at += sizeof(header);
        FUZZ_CHECK(at + size <= vec_len(all));
        const reply_header_t *reply = (const reply_header_t *)(all + at);
        u16 which = (u16)(clib_net_to_host_u16(reply->id) - lb_rl_main.message_base);
        if (which == id + 1) {
            FUZZ_CHECK(reply->context == context);
            answers.count++;
            check_reply(reply, size, kind, &answers);
        } else {
            FUZZ_CHECK(which == VL_API_LB_RL_VIP_EVENT || which == VL_API_LB_RL_AGENT_EVENT ||
                       (id == VL_API_LB_RL_FLOW_GET && which == VL_API_LB_RL_FLOW_DETAILS));
        }
        at += size;
    }
    vec_free(all);
    return answers;
}

static void check_dump(u16 id, u32 count)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    if (lm->io == NULL) {
        FUZZ_CHECK(count == 0);
    } else if (id == VL_API_LB_RL_SOURCE_DUMP) {
        FUZZ_CHECK(count == lbrl_sources(lm->core, NULL, 0));
    } else if (id == VL_API_LB_RL_VIP_DUMP) {
        u32 vips = lbrl_vip_ids(lm->core, NULL, 0);
        FUZZ_CHECK(count == vips || count <= 1); /* all, or the one that was asked for */
    }
}

/* ---- Requests ---- */

/* Gives VPP a message as one that came over a socket. False if it is dropped: it says that it is longer than it is. */
static bool deliver(const request_header_t *message, u32 size)
{
    u16 id = clib_net_to_host_u16(message->id);
    void *copy = malloc(size); /* exactly so large, for ASan; it is converted where it lies */
    FUZZ_CHECK(copy != NULL);
    clib_memcpy(copy, message, size);
    bool whole = vlibapi_get_main()->msg_data[id].calc_size_func(copy) <= size;
    if (whole) {
        vl_msg_api_socket_handler(copy, size);
    }
    free(copy);
    return whole;
}

static void check_vip(const vl_api_lb_rl_vip_set_t *said)
{
    lbrl_vip_config_t config;
    u64 id = clib_net_to_host_u64(said->id);
    FUZZ_CHECK(lbrl_vip_config(lb_rl_main.core, id, &config, NULL, 0) == LBRL_OK);
    FUZZ_CHECK(config.port == clib_net_to_host_u16(said->port));
    FUZZ_CHECK(config.protocol == said->protocol && config.scheduler == said->scheduler);
    FUZZ_CHECK(config.forwarding == said->forwarding && config.dscp == said->dscp);
    FUZZ_CHECK(config.client_affinity <= 1);
    FUZZ_CHECK(config.when_no_backends == said->when_no_backends);
    FUZZ_CHECK(config.when_no_flow == said->when_no_flow);
    FUZZ_CHECK(config.address_count == said->address_count);
    FUZZ_CHECK(config.backend_count == clib_net_to_host_u32(said->count));
}

static void send_request(u32 which, const request_header_t *message, u32 size)
{
    u16 id = requests[which].id;
    kind_t kind = requests[which].kind;
    u8 *before = fuzz_state();
    if (!deliver(message, size)) {
        fuzz_check_unchanged(before);
        return;
    }
    answers_t answers = read_answers(id, message->context, kind);
    if (message->client_index == clib_host_to_net_u32(NOBODY)) {
        FUZZ_CHECK(answers.count == 0 && vec_len(lb_rl_main.subscribers) <= 1);
        vec_free(before);
    } else if (kind == DUMP) {
        check_dump(id, answers.count);
        fuzz_check_unchanged(before);
    } else if (answers.retval != 0) {
        fuzz_check_unchanged(before);
    } else {
        FUZZ_CHECK(answers.count == 1);
        vec_free(before);
    }
    if (id == VL_API_LB_RL_VIP_SET && answers.count == 1 && answers.retval == 0) {
        check_vip((const vl_api_lb_rl_vip_set_t *)message);
        before = fuzz_state();
        FUZZ_CHECK(deliver(message, size));
        FUZZ_CHECK(read_answers(id, message->context, kind).retval == 0);
        fuzz_check_unchanged(before);
    }
}

/* Builds the message and sends it; `size` bytes of it are given. */
static void say(u32 which, bool stranger, const u8 *data, u32 size)
{
    static u8 message[SIZE_MAX_SENT];
    u32 given = clib_min(size, (u32)(sizeof(message) - sizeof(request_header_t)));
    u32 whole = clib_max((u32)sizeof(request_header_t) + given, (u32)requests[which].size);
    u32 handle = stranger ? NOBODY : (1u << 31 | client_place);
    request_header_t header = {
        .id = clib_host_to_net_u16((u16)(lb_rl_main.message_base + requests[which].id)),
        .client_index = clib_host_to_net_u32(handle),
        .context = 0x01020304};
    clib_memset(message, 0, whole);
    clib_memcpy(message, &header, sizeof(header));
    clib_memcpy(message + sizeof(header), data, given);
    send_request(which, (const request_header_t *)message, whole);
}

int fuzz_api(vlib_main_t *vm, const u8 *data, size_t size)
{
    if (client < 0) {
        connect_client(vm);
    }
    u32 messages = 0;
    for (; size >= 3 && messages < MESSAGES_MAX; messages++) {
        u32 which = (data[0] & WHICH) % ARRAY_LEN(requests);
        u32 length = (u32)clib_min((size_t)(data[1] | data[2] << 8), size - 3);
        if (which == STEP) {
            fuzz_step(vm);
            u8 *events = receive();
            vec_free(events);
        } else {
            say(which, (data[0] & STRANGER) != 0, data + 3, length);
        }
        data += 3 + length;
        size -= 3 + length;
    }
    return messages > 0 ? 0 : -1;
}
