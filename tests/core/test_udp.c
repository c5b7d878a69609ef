/* UDP flows: timeouts by what has been exchanged, port 53, checksums. */
#include "rig.h"

typedef struct exchange {
    rig_t *rig;
    const char *client, *vip;
    uint16_t client_port, vip_port;
    seen_t out; /* the client's last datagram as the server sees it */
    test_packet_t packet;
} exchange_t;

static lbrl_verdict_t ask(exchange_t *e, size_t payload)
{
    make_udp(&e->packet, e->client, e->client_port, e->vip, e->vip_port, payload);
    lbrl_verdict_t verdict = rig_send(e->rig, &e->packet);
    if (verdict == LBRL_VERDICT_FORWARD) {
        e->out = look(&e->packet.p);
    }
    return verdict;
}

static lbrl_verdict_t answer(exchange_t *e, size_t payload)
{
    make_udp(&e->packet, text_of(&e->out.dst), e->out.dport, text_of(&e->out.src), e->out.sport,
             payload);
    lbrl_verdict_t verdict = rig_send(e->rig, &e->packet);
    if (verdict == LBRL_VERDICT_FORWARD) {
        seen_t seen = look(&e->packet.p);
        CHECK(is_address(&seen.src, e->vip));
        CHECK(is_address(&seen.dst, e->client));
        CHECK_EQUAL(seen.sport, e->vip_port);
        CHECK_EQUAL(seen.dport, e->client_port);
    }
    return verdict;
}

static uint8_t state_of(const exchange_t *e)
{
    lbrl_flow_info_t flow;
    uint64_t cursor = 0;
    while (lbrl_flow_next(e->rig->lb, &cursor, e->rig->now_us, &flow)) {
        if (flow.client_port == e->client_port && flow.protocol == 17) {
            return flow.state;
        }
    }
    return LBRL_FLOW_FREE;
}

static rig_t rig_with_udp(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(4, "203.0.113.10", 5000, 17, backends, 2);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    config = rig_vip(5, "1:10", 5000, 17, backends, 2);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    return rig;
}

static exchange_t exchange_make(rig_t *rig, bool v6, uint16_t client_port, uint16_t vip_port)
{
    return (exchange_t){.rig = rig,
                        .client = v6 ? "5:7" : "198.51.100.7",
                        .vip = v6 ? "1:10" : "203.0.113.10",
                        .client_port = client_port,
                        .vip_port = vip_port};
}

static void flow_lives_longer_the_more_it_has_exchanged(void)
{
    rig_t rig = rig_with_udp();
    for (int v6 = 0; v6 < 2; v6++) {
        exchange_t e = exchange_make(&rig, v6, 30000, 5000);
        CHECK_EQUAL(ask(&e, 40), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(state_of(&e), LBRL_FLOW_UDP_NEW);
        rig_pass(&rig, 9000);
        CHECK_EQUAL(state_of(&e), LBRL_FLOW_UDP_NEW);
        rig_pass(&rig, 2500);
        CHECK_EQUAL(state_of(&e), LBRL_FLOW_FREE);

        CHECK_EQUAL(ask(&e, 40), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(answer(&e, 41), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(state_of(&e), LBRL_FLOW_UDP_EXCHANGE);
        rig_pass(&rig, 29000);
        CHECK_EQUAL(state_of(&e), LBRL_FLOW_UDP_EXCHANGE);
        rig_pass(&rig, 2500);
        CHECK_EQUAL(state_of(&e), LBRL_FLOW_FREE);

        CHECK_EQUAL(ask(&e, 1), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(answer(&e, 0), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(ask(&e, 3), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(state_of(&e), LBRL_FLOW_UDP_STREAM);
        rig_pass(&rig, 178000);
        CHECK_EQUAL(state_of(&e), LBRL_FLOW_UDP_STREAM);
        rig_pass(&rig, 4000);
        CHECK_EQUAL(state_of(&e), LBRL_FLOW_FREE);
    }
    rig_free(&rig);
}

static void question_keeps_its_backend_while_unanswered(void)
{
    rig_t rig = rig_with_udp();
    exchange_t e = exchange_make(&rig, false, 30000, 5000);
    CHECK_EQUAL(ask(&e, 40), LBRL_VERDICT_FORWARD);
    seen_t first = e.out;
    for (int i = 0; i < 5; i++) {
        rig_pass(&rig, 8000);
        CHECK_EQUAL(ask(&e, 40), LBRL_VERDICT_FORWARD);
        CHECK(memcmp(&e.out.dst, &first.dst, sizeof(first.dst)) == 0);
        CHECK_EQUAL(e.out.sport, first.sport);
    }
    rig_free(&rig);
}

/* A NAT before the client gives it another port in the midst of a stream (QUIC, WireGuard). To the load balancer that is
 * another flow: with client affinity its server stays, without it may be another one. The earlier flow keeps its way. */
static void client_that_rebinds_keeps_its_server_by_affinity_only(void)
{
    rig_t rig = rig_with_udp();
    for (int v6 = 0; v6 < 2; v6++) {
        for (uint8_t affinity = 0; affinity < 2; affinity++) {
            lbrl_backend_config_t backends[8];
            lbrl_vip_config_t config =
                rig_vip(v6 ? 5 : 4, v6 ? "1:10" : "203.0.113.10", 5000, 17, backends, 8);
            config.client_affinity = affinity;
            CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
            uint16_t port = (uint16_t)(31000 + 100 * affinity);
            exchange_t first = exchange_make(&rig, v6, port, 5000);
            CHECK_EQUAL(ask(&first, 40), LBRL_VERDICT_FORWARD);
            CHECK_EQUAL(answer(&first, 40), LBRL_VERDICT_FORWARD);
            const seen_t before = first.out;
            uint32_t same = 0;
            for (uint16_t i = 1; i <= 16; i++) {
                exchange_t again = exchange_make(&rig, v6, port + i, 5000);
                CHECK_EQUAL(ask(&again, 40), LBRL_VERDICT_FORWARD);
                CHECK_EQUAL(answer(&again, 40), LBRL_VERDICT_FORWARD); /* to the new port */
                CHECK_EQUAL(answer(&first, 40), LBRL_VERDICT_FORWARD); /* and to the one before */
                CHECK_EQUAL(state_of(&again), LBRL_FLOW_UDP_EXCHANGE);
                same += memcmp(&again.out.dst, &before.dst, sizeof(before.dst)) == 0;
            }
            CHECK(affinity ? same == 16 : same < 8);
            CHECK_EQUAL(ask(&first, 40), LBRL_VERDICT_FORWARD); /* the binding came back */
            CHECK(memcmp(&first.out.dst, &before.dst, sizeof(before.dst)) == 0);
            CHECK_EQUAL(first.out.sport, before.sport);
        }
    }
    rig_free(&rig);
}

static void port_53_closes_with_its_answer(void)
{
    rig_t rig = rig_with_udp();
    exchange_t e = exchange_make(&rig, false, 30000, 53);
    CHECK_EQUAL(ask(&e, 40), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(answer(&e, 90), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(state_of(&e), LBRL_FLOW_UDP_ANSWERED);
    CHECK_EQUAL(ask(&e, 40), LBRL_VERDICT_FORWARD); /* another question from that port */
    CHECK_EQUAL(state_of(&e), LBRL_FLOW_UDP_EXCHANGE);
    CHECK_EQUAL(answer(&e, 90), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(answer(&e, 90), LBRL_VERDICT_FORWARD); /* a late duplicate */
    CHECK_EQUAL(state_of(&e), LBRL_FLOW_UDP_ANSWERED);
    rig_pass(&rig, 2500);
    CHECK_EQUAL(state_of(&e), LBRL_FLOW_FREE);
    rig_free(&rig);
}

/* A and AAAA are asked from one socket, and the second answer may take longer than an answered flow is kept. */
static void port_53_waits_for_as_many_answers_as_questions(void)
{
    rig_t rig = rig_with_udp();
    exchange_t e = exchange_make(&rig, false, 30000, 53);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            CHECK_EQUAL(ask(&e, 40), LBRL_VERDICT_FORWARD);
        }
        for (int i = 0; i < 3; i++) {
            rig_pass(&rig, 4000);
            CHECK_EQUAL(answer(&e, 90), LBRL_VERDICT_FORWARD);
            CHECK_EQUAL(state_of(&e), i < 2 ? LBRL_FLOW_UDP_EXCHANGE : LBRL_FLOW_UDP_ANSWERED);
        }
        rig_restart(&rig);
    }
    rig_pass(&rig, 2500);
    CHECK_EQUAL(state_of(&e), LBRL_FLOW_FREE);
    rig_free(&rig);
}

static void absent_checksum_stays_absent_and_a_computed_zero_does_not_look_so(void)
{
    rig_t rig = rig_with_udp();
    exchange_t e = exchange_make(&rig, false, 30000, 5000);
    make_udp(&e.packet, e.client, e.client_port, e.vip, e.vip_port, 10);
    e.packet.p.data[26] = e.packet.p.data[27] = 0;
    CHECK_EQUAL(rig_send(&rig, &e.packet), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(packet_u16(&e.packet.p, 26), 0);

    /* some payload makes the translated checksum 0, which must be sent as 0xffff; look() accepts that and not 0,
     * for it takes 0 as absent */
    unsigned ones = 0;
    for (unsigned i = 0; i < 65536; i++) {
        make_udp(&e.packet, e.client, e.client_port, e.vip, e.vip_port, 2);
        e.packet.p.data[28] = (uint8_t)(i >> 8);
        e.packet.p.data[29] = (uint8_t)i;
        fix_checksums(&e.packet.p);
        CHECK_EQUAL(rig_send(&rig, &e.packet), LBRL_VERDICT_FORWARD);
        CHECK(packet_u16(&e.packet.p, 26) != 0);
        if (packet_u16(&e.packet.p, 26) == 0xffff) {
            ones++;
        }
        look(&e.packet.p);
    }
    CHECK(ones >= 1);
    rig_free(&rig);
}

static void ipv6_without_checksum_is_dropped(void)
{
    rig_t rig = rig_with_udp();
    exchange_t e = exchange_make(&rig, true, 30000, 5000);
    make_udp(&e.packet, e.client, e.client_port, e.vip, e.vip_port, 10);
    e.packet.p.data[46] = e.packet.p.data[47] = 0;
    CHECK_EQUAL(rig_send(&rig, &e.packet), LBRL_VERDICT_DROP);
    CHECK_EQUAL(e.packet.p.reason, LBRL_DROP_BAD_CHECKSUM);
    rig_free(&rig);
}

static void failed_backend_is_replaced_at_once(void)
{
    rig_t rig = rig_with_udp();
    exchange_t e = exchange_make(&rig, false, 30000, 5000);
    CHECK_EQUAL(ask(&e, 40), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(answer(&e, 40), LBRL_VERDICT_FORWARD);
    seen_t first = e.out;
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(4, "203.0.113.10", 5000, 17, backends, 2);
    backends[first.dst.bytes[15] - 1].state = LBRL_BACKEND_FAILED;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    CHECK_EQUAL(ask(&e, 40), LBRL_VERDICT_FORWARD);
    CHECK(memcmp(&e.out.dst, &first.dst, sizeof(first.dst)) != 0);
    CHECK_EQUAL(answer(&e, 40), LBRL_VERDICT_FORWARD);
    rig_free(&rig);
}

int main(void)
{
    flow_lives_longer_the_more_it_has_exchanged();
    question_keeps_its_backend_while_unanswered();
    client_that_rebinds_keeps_its_server_by_affinity_only();
    port_53_closes_with_its_answer();
    port_53_waits_for_as_many_answers_as_questions();
    absent_checksum_stays_absent_and_a_computed_zero_does_not_look_so();
    ipv6_without_checksum_is_dropped();
    failed_backend_is_replaced_at_once();
    return 0;
}
