# Sends ARP answers by a raw socket, as root in an instance's network namespace:
# each argument is ADDRESS=HARDWARE-ADDRESS, "this address is at that hardware address".
use strict;
use Socket;
socket(my $s, 17, SOCK_RAW, 0x0608) or die "socket: $!";
my $ifreq = pack("a16 x24", "eth0");
ioctl($s, 0x8933, $ifreq) or die "index: $!";
my $index = unpack("x16 i", $ifreq);
bind($s, pack("S n i S C C a8", 17, 0x0806, $index, 0, 0, 0, "")) or die "bind: $!";
for (@ARGV) {
    my ($address, $hardware) = split /=/;
    my ($ip, $mac) = (inet_aton($address), pack("C6", map { hex } split /:/, $hardware));
    my $all = "\xff" x 6;
    my $arp = pack("n n C C n", 1, 0x0800, 6, 4, 2) . $mac . $ip . $all . $ip;
    # The kernel refuses what its own rules drop here; the bridge is what is asked.
    defined(send($s, $all . $mac . pack("n", 0x0806) . $arp, 0)) or die "send: $!";
}
