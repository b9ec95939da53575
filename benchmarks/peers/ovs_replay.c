/* Open vSwitch's userspace conntrack with a capture on either side, for the comparison in this folder.
 *
 *     ovs_replay IN.pcap [OUT.pcap]
 *
 * One rule: everything but this loop is Open vSwitch's: its reader, its parser, conntrack_execute() with source
 * NAT to the addresses of `traffic.py` (the original port if it is free), its writer.  Packets go in batches of
 * up to 32, the size of a batch in its datapath; a batch ends early where IPv4 and IPv6 take turns, since one call
 * takes one Ethernet type.  Every packet may commit a connection, and every new connection is translated: batches
 * stay longer so than with a rule for each side, which is to this program's advantage.
 *
 * Its checksums are verified and updated as it does without a network card; its clock is the wall's, so nothing
 * expires while a capture is replayed.  Prints packets read, packets written and connections, as JSON.
 *
 * Built by `provide.py` with the sources of Debian's package openvswitch-source.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "conntrack.h"
#include "dp-packet.h"
#include "flow.h"
#include "packets.h"
#include "pcap-file.h"
#include "timeval.h"
#include "util.h"

static struct conntrack *tracker;
static struct pcap_file *out;
static unsigned long packets_read, packets_written;

/* Track and translate what has gathered, write what comes out of it, and begin anew. */
static void
finish(struct dp_packet_batch *batch, ovs_be16 dl_type, const struct nat_action_info_t *nat)
{
    struct dp_packet *packet;

    if (dp_packet_batch_is_empty(batch)) {
        return;
    }
    if (dl_type == htons(ETH_TYPE_IP) || dl_type == htons(ETH_TYPE_IPV6)) {
        conntrack_execute(tracker, batch, dl_type, false, true, 0, NULL, NULL, 0, 0, NULL, nat, time_msec(), 0);
    }
    DP_PACKET_BATCH_FOR_EACH (i, packet, batch) {
        if (out) {
            ovs_pcap_write(out, packet);
        }
        packets_written++;
    }
    dp_packet_delete_batch(batch, true);
    dp_packet_batch_init(batch);
}

int
main(int argc, char *argv[])
{
    struct nat_action_info_t nat4 = {.nat_action = NAT_ACTION_SRC};
    struct nat_action_info_t nat6 = {.nat_action = NAT_ACTION_SRC};
    struct dp_packet_batch batch;
    ovs_be16 batch_type = 0;
    uint32_t connections = 0;
    struct pcap_file *in;
    int error;

    set_program_name(argv[0]);
    if (argc < 2) {
        ovs_fatal(0, "usage: %s IN.pcap [OUT.pcap]", argv[0]);
    }
    in = ovs_pcap_open(argv[1], "rb");
    out = argc > 2 ? ovs_pcap_open(argv[2], "wb") : NULL;
    if (!in || (argc > 2 && !out)) {
        ovs_fatal(0, "cannot open the captures");
    }
    ovs_assert(ip_parse("203.0.113.5", &nat4.min_addr.ipv4));
    ovs_assert(ipv6_parse("2001:db8:5::5", &nat6.min_addr.ipv6));
    nat4.max_addr = nat4.min_addr;
    nat6.max_addr = nat6.min_addr;

    tracker = conntrack_init();
    dp_packet_batch_init(&batch);
    for (;;) {
        struct dp_packet *packet;
        struct flow flow;

        error = ovs_pcap_read(in, &packet, NULL);
        if (error) {
            break;
        }
        packets_read++;
        pkt_metadata_init(&packet->md, 0);
        flow_extract(packet, &flow); /* also finds the headers that conntrack wants */
        if (flow.dl_type != batch_type || dp_packet_batch_is_full(&batch)) {
            finish(&batch, batch_type, batch_type == htons(ETH_TYPE_IP) ? &nat4 : &nat6);
            batch_type = flow.dl_type;
        }
        dp_packet_batch_add(&batch, packet);
    }
    if (error != EOF) {
        ovs_fatal(error, "%s", argv[1]);
    }
    finish(&batch, batch_type, batch_type == htons(ETH_TYPE_IP) ? &nat4 : &nat6);
    conntrack_get_nconns(tracker, &connections);
    printf("{\"packets\": %lu, \"written\": %lu, \"live\": %u}\n", packets_read, packets_written, connections);
    ovs_pcap_close(in);
    if (out) {
        ovs_pcap_close(out);
    }
    fflush(stdout);
    _Exit(0); /* the sweeper thread needs no farewell */
}
