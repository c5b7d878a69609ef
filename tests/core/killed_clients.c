#include "killed.h"

#include "internal.h"

journal_t *journal;

const killed_vip_t KILLED_VIPS[VIPS] = {
    {"203.0.113.10", 80, 6, LBRL_FORWARD_NAT},  {"1:10", 80, 6, LBRL_FORWARD_NAT},
    {"203.0.113.10", 53, 17, LBRL_FORWARD_NAT}, {"1:10", 5000, 17, LBRL_FORWARD_NAT},
    {"203.0.113.11", 80, 6, LBRL_FORWARD_GRE},  {"1:11", 80, 6, LBRL_FORWARD_GRE},
};

uint32_t any(uint32_t whose, uint32_t below)
{
    return (uint32_t)((random_next(&journal->random[whose]) >> 32) * below >> 32);
}

/* What the journal says of a connection counts only while it is open: said last, and taken back first. */
static void journal_open(uint32_t i, uint8_t open)
{
    __atomic_store_n(&journal->open[i], open, __ATOMIC_SEQ_CST);
}

uint32_t kind_of(uint32_t client)
{
    return client % VIPS;
}

lbrl_address_t destination(const lbrl_packet_t *packet)
{
    lbrl_address_t address = address_of("0.0.0.0");
    if (packet->data[0] >> 4 == 4) {
        memcpy(address.bytes + 12, packet->data + 16, 4);
    } else {
        memcpy(address.bytes, packet->data + 24, 16);
    }
    return address;
}

/* A client port whose flow this worker owns. */
static uint16_t port_for(const rig_t *here, uint32_t i)
{
    const uint32_t kind = kind_of(i);
    lbrl_address_t client = address_of(journal->clients[i]);
    lbrl_address_t vip = address_of(KILLED_VIPS[kind].address);
    ip_t src, dst;
    memcpy(&src, &client, sizeof(src));
    memcpy(&dst, &vip, sizeof(dst));
    for (;;) {
        const uint16_t port = (uint16_t)(20000 + any(here->entry, 2000));
        const uint64_t hash =
            tuple_hash(&here->lb->key, &src, &dst, swap16(port), swap16(KILLED_VIPS[kind].port),
                       KILLED_VIPS[kind].protocol);
        if (here->lb->owner[hash & (LBRL_PARTITIONS - 1)] == here->entry) {
            return port;
        }
    }
}

static void begin(rig_t *here, uint32_t i)
{
    const uint32_t kind = kind_of(i);
    connection_t *c = &journal->connections[i];
    *c = connection_make(here, journal->clients[i], port_for(here, i), KILLED_VIPS[kind].address);
    c->vip_port = KILLED_VIPS[kind].port;
}

static void talk_tcp(rig_t *here, uint32_t i)
{
    connection_t *c = &journal->connections[i];
    if (!journal->open[i]) {
        begin(here, i);
        if (connection_syn(c) != LBRL_VERDICT_FORWARD) {
            return;
        }
        journal_open(i, 1);
        connection_server(c, SYN, 0);
        connection_client(c, 0, 0);
    } else if (any(here->entry, 4) == 0) {
        journal_open(i, 0);
        connection_client(c, FIN, 0);
        connection_server(c, FIN, 0);
    } else {
        connection_t copy =
            *c; /* sequence numbers in the journal move only when the packet is through */
        if (connection_client(&copy, PSH, 10) != LBRL_VERDICT_FORWARD) {
            journal_open(i, 0);
            return;
        }
        connection_server(&copy, PSH, 10);
        c->client_next = copy.client_next;
        c->server_next = copy.server_next;
    }
}

lbrl_verdict_t segment(rig_t *here, connection_t *c, uint8_t flags, size_t payload)
{
    tcp_fields_t tcp = {.sequence = c->client_next, .ack = 1, .flags = flags};
    make_tcp(&c->packet, c->client, c->client_port, c->vip, c->vip_port, &tcp, payload);
    return rig_send(here, &c->packet);
}

static void talk_one_way(rig_t *here, uint32_t i)
{
    connection_t *c = &journal->connections[i];
    if (!journal->open[i]) {
        begin(here, i);
        if (segment(here, c, SYN, 0) == LBRL_VERDICT_FORWARD) {
            c->backend = destination(&c->packet.p);
            c->client_next++;
            journal_open(i, 1);
        }
        return;
    }
    const bool ends = any(here->entry, 4) == 0;
    connection_t copy = *c;
    journal_open(i, 0); /* the packet may begin the flow anew, at another backend */
    lbrl_verdict_t verdict = segment(here, &copy, ACK | (ends ? FIN : PSH), 10);
    lbrl_address_t backend = destination(&copy.packet.p);
    c->client_next += 10;
    if (!ends && verdict == LBRL_VERDICT_FORWARD &&
        memcmp(&backend, &c->backend, sizeof(backend)) == 0) {
        journal_open(i, 1);
    }
}

/* A datagram may begin its flow anew wherever it wants to, so that the journal is silent until it is through. */
static void talk_udp(rig_t *here, uint32_t i)
{
    connection_t *c = &journal->connections[i];
    const bool is_new = !journal->open[i] || any(here->entry, 8) == 0;
    journal_open(i, 0);
    if (is_new) {
        begin(here, i);
    }
    make_udp(&c->packet, c->client, c->client_port, c->vip, c->vip_port, 20);
    if (rig_send(here, &c->packet) != LBRL_VERDICT_FORWARD) {
        return;
    }
    const seen_t seen = look(&c->packet.p);
    c->backend = seen.dst;
    c->source = seen.src;
    c->backend_port = seen.dport;
    c->nat_port = seen.sport;
    journal_open(i, 1);
    if (any(here->entry, 2)) {
        make_udp(&c->packet, text_of(&c->backend), c->backend_port, text_of(&c->source),
                 c->nat_port, 30);
        (void)rig_send(here, &c->packet);
    }
}

void talk(rig_t *here, uint32_t i)
{
    journal->connections[i].rig = here; /* what is there is of a process that was killed */
    if (KILLED_VIPS[kind_of(i)].protocol == 17) {
        talk_udp(here, i);
    } else if (KILLED_VIPS[kind_of(i)].forwarding == LBRL_FORWARD_GRE) {
        talk_one_way(here, i);
    } else {
        talk_tcp(here, i);
    }
}
