/*
 * decap <device>: takes IPv4 packets out of GRE on a server whose kernel has no device for that, and hands them to its
 * stack through a TUN that is there already. It stands in for the kernel's in benchmarks; what it costs counts against
 * the load balancer before it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BURST = 32,
    PACKET_MAX = 2048, /* on the wire: the load balancer segments what is larger */
    GRE_HEADER = 4,
    BUFFER_BYTES = 8 << 20,
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int attached(const char *device)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strncpy(request.ifr_name, device, IFNAMSIZ - 1);
    int tun = open("/dev/net/tun", O_RDWR);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) != 0) {
        die(device);
    }
    return tun;
}

int main(int argc, char **argv)
{
    static uint8_t data[BURST][PACKET_MAX];
    struct iovec parts[BURST];
    struct mmsghdr messages[BURST];
    const int bytes = BUFFER_BYTES;
    if (argc != 2) {
        fputs("usage: decap DEVICE\n", stderr);
        return 2;
    }
    int tun = attached(argv[1]);
    int heard = socket(AF_INET, SOCK_RAW, IPPROTO_GRE);
    if (heard < 0 || setsockopt(heard, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0) {
        die("raw socket");
    }
    for (int i = 0; i < BURST; i++) {
        parts[i] = (struct iovec){data[i], sizeof(data[i])};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int got = recvmmsg(heard, messages, BURST, MSG_WAITFORONE, NULL);
        for (int i = 0; i < got; i++) {
            size_t before = (data[i][0] & 15u) * 4u + GRE_HEADER;
            if (messages[i].msg_len > before &&
                write(tun, data[i] + before, messages[i].msg_len - before) < 0) {
                die("write");
            }
        }
    }
}
