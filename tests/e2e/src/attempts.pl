# What a hostile superuser of a database tries, each attempt by name. Prints NAME=RESULT lines: done
# or the name of the error. Runs inside a sandbox, where all is to be refused, and as root in
# namespaces of its own on the host, where the same code shows that the attempt itself works.
# Arguments: what is different each time, as KEY=VALUE; dial.NAME=ADDRESS:PORT is dialled.
# No single quote may stand in here: it travels in a shell word.
use strict;
use Socket;
use Errno;
use Fcntl;

my (%arg, @dials);
for (@ARGV) {
    my ($key, $value) = split /=/, $_, 2;
    if ($key =~ /^dial\.(.+)/) { push @dials, [$1, $value] } else { $arg{$key} = $value }
}

sub failed { my @names = sort grep { $!{$_} } keys %!; return $names[0] || "error " . ($! + 0) }
sub answer { return $_[0] ? "done" : failed() }
sub call { my $r = syscall(shift, @_); return $r == -1 ? failed() : "done" }
sub opened { my ($path, $flags) = @_; return answer(sysopen(my $f, $path, $flags)) }
sub made { my ($path) = @_; my $r = opened($path, O_WRONLY | O_CREAT); unlink $path; return $r }
sub family { my ($f, $type, $protocol) = @_; return answer(socket(my $s, $f, $type, $protocol)) }
sub unshared { return call(272, $_[0]) }
sub interface { # An ioctl on the loopback: request and what follows the name.
    my ($request, $rest) = @_;
    socket(my $s, AF_INET, SOCK_DGRAM, 0) or return failed();
    my $ifreq = pack("a16 a24", "lo", $rest);
    return answer(ioctl($s, $request, $ifreq));
}
sub with_child { # Something done to a process of the same user that sleeps.
    my ($work) = @_;
    my $pid = fork;
    if (!$pid) { sleep 20; exit 0 }
    my $r = $work->($pid);
    kill 9, $pid;
    waitpid $pid, 0;
    return $r;
}
sub executed { # Runs a program to its end; tells the error of exec.
    my ($path) = @_;
    my $pid = fork;
    if (!$pid) { exec { $path } $path; exit 100 + ($! + 0) }
    waitpid $pid, 0;
    $! = ($? >> 8) - 100;
    return $? == 0 ? "done" : failed();
}

my ($none, $tmp, $root, $proc, $tmpfs, $cgroup) = ("none", "/tmp", "/", "/proc", "tmpfs", "cgroup2");
my $zeros = "\0" x 256;
my @attempts = (
    ["mount", sub { call(165, $none, $tmp, $tmpfs, 0, 0) }],
    ["mount-cgroups", sub { call(165, $none, $tmp, $cgroup, 0, 0) }],
    ["remount-root-writable", sub { call(165, $none, $root, $none, 32 | 4096, 0) }],
    ["unmount-proc", sub { call(166, $proc, 2) }],
    ["chroot", sub { call(161, $root) }],
    ["pivot-root", sub { call(155, $root, $root) }],
    ["open-tree", sub { call(428, -100, $root, 0) }],
    ["unshare-user", sub { unshared(0x10000000) }],
    ["unshare-mount", sub { unshared(0x00020000) }],
    ["unshare-net", sub { unshared(0x40000000) }],
    ["unshare-pid", sub { unshared(0x20000000) }],
    ["clone-user", sub {
        my $r = syscall(56, 0x10000000 | 17, 0, 0, 0, 0);
        if ($r == 0) { syscall(231, 0) }
        return $r == -1 ? failed() : "done";
    }],
    ["clone3", sub {
        my $r = syscall(435, $zeros, 64);
        if ($r == 0) { syscall(231, 0) }
        return $r == -1 ? failed() : "done";
    }],
    ["setns", sub {
        my $fd = syscall(434, $$ + 0, 0);
        return $fd == -1 ? failed() : call(308, $fd, 0x40000000);
    }],
    ["ptrace", sub { with_child(sub { call(101, 16, $_[0], 0, 0) }) }],
    ["read-memory-of-another", sub { with_child(sub { call(310, $_[0], 0, 0, 0, 0, 0) }) }],
    ["take-descriptor-of-another", sub {
        with_child(sub {
            my $fd = syscall(434, $_[0], 0);
            return $fd == -1 ? failed() : call(438, $fd, 0, 0);
        })
    }],
    ["bpf", sub { my $map = pack("L5 x60", 2, 4, 4, 1, 0); call(321, 0, $map, 72) }],
    ["perf-events", sub { my $event = pack("L L Q x112", 1, 128, 0); call(298, $event, 0, -1, -1, 0) }],
    ["keyctl", sub { call(250, 0, -3, 1) }],
    ["add-key", sub { my @k = ("user", "coffer", "x"); call(248, $k[0], $k[1], $k[2], 1, -2) }],
    ["io-uring", sub { call(425, 1, $zeros) }],
    ["userfaultfd", sub { call(323, 0) }],
    ["open-by-handle", sub { call(304, -100, $zeros, 0) }],
    ["load-module", sub { my $e = ""; call(313, -1, $e, 0) }],
    ["reboot", sub { call(169, 1, 2, 3, 0) }],
    ["set-clock", sub { call(227, 99, $zeros) }],
    ["set-host-name", sub { my $n = "x"; call(170, $n, 1) }],
    ["kernel-log", sub { call(103, 10, 0, 0) }],
    ["become-root", sub { call(105, 0) }],
    ["make-device", sub {
        my $at = "$tmp/coffer-attempt-$$";
        my $r = call(133, $at, 060600, 7 << 8);
        unlink $at;
        return $r;
    }],
    ["open-loop-control", sub { opened("/dev/loop-control", O_RDWR) }],
    ["open-core-pattern", sub { opened("/proc/sys/kernel/core_pattern", O_WRONLY) }],
    ["cgroup-files", sub { opened("/sys/fs/cgroup/$arg{cgroup}", O_WRONLY) }],
    ["environment-of-init", sub { opened("/proc/1/environ", O_RDONLY) }],
    ["memory-of-init", sub { opened("/proc/1/mem", O_RDWR) }],
    ["root-of-init", sub { answer(opendir(my $d, "/proc/1/root/")) }],
    ["processes-of-others", sub {
        if ($arg{apart}) {
            if (!fork) { exec "setpriv", "--reuid=65534", "sleep", "20" }
            select undef, undef, undef, 0.3;
        }
        opendir(my $d, "/proc") or return failed();
        my @foreign = grep { /^[0-9]+$/ && (stat("/proc/$_"))[4] != $> } readdir $d;
        return @foreign ? "done" : "ENOENT";
    }],
    ["kill-init", sub { answer(kill("ZERO", $arg{init})) }],
    ["kill-agent", sub { answer(kill("ZERO", $arg{agent})) }],
    ["memory-of-agent", sub { opened("/proc/$arg{agent}/mem", O_RDWR) }],
    ["descriptors-of-agent", sub { answer(opendir(my $d, "/proc/$arg{agent}/fd")) }],
    ["keys-of-agent", sub { answer(opendir(my $d, $arg{agent_dir})) }],
    ["write-usr", sub { made("/usr/coffer-attempt") }],
    ["write-etc", sub { made("/etc/coffer-attempt") }],
    ["write-root", sub { made("/coffer-attempt") }],
    ["write-guest-program", sub { opened($arg{guest}, O_WRONLY) }],
    ["files-of-host", sub { answer(opendir(my $d, $arg{state_dir})) }],
    ["run-own-program", sub {
        my $at = "$arg{own_dir}/coffer-attempt-$$";
        open(my $in, "<", "/usr/bin/true") or return failed();
        open(my $out, ">", $at) or return failed();
        local $/;
        my $program = <$in>;
        print $out $program;
        close $out;
        chmod 0755, $at;
        my $r = executed($at);
        unlink $at;
        return $r;
    }],
    ["vsock", sub { family(40, SOCK_STREAM, 0) }],
    ["packet-socket", sub { family(17, SOCK_RAW, 0x0300) }],
    ["raw-socket", sub { family(AF_INET, SOCK_RAW, 1) }],
    ["netfilter-socket", sub { family(16, SOCK_RAW, 12) }],
    ["set-interface-flags", sub { interface(0x8914, pack("s", 1)) }],
    ["set-interface-address", sub { interface(0x8916, pack("S n a4", 2, 0, inet_aton("127.0.0.9"))) }],
    ["add-arp-entry", sub {
        socket(my $s, AF_INET, SOCK_DGRAM, 0) or return failed();
        my $ip = pack("S n a4 x8", 2, 0, inet_aton("127.0.0.9"));
        my $entry = $ip . pack("S a6 x8", 1, "\x02\0\0\0\0\x01") . pack("i", 6) . ("\0" x 16) . pack("a16", "lo");
        return answer(ioctl($s, 0x8955, $entry));
    }],
    ["transparent-socket", sub {
        socket(my $s, AF_INET, SOCK_STREAM, 0) or return failed();
        return answer(setsockopt($s, 0, 19, pack("i", 1)));
    }],
    # These are allowed everywhere: they show that a refusal is not the fault of the tool.
    ["control-open", sub { opened("/etc/passwd", O_RDONLY) }],
    ["control-write", sub { made("$arg{own_dir}/coffer-attempt") }],
    ["control-run", sub { executed("/usr/bin/true") }],
    ["control-kill", sub { with_child(sub { answer(kill("ZERO", $_[0])) }) }],
    ["control-socket", sub { family(AF_INET, SOCK_STREAM, 0) }],
);

$| = 1;
for (@attempts) { # Each in a process of its own, so that none has what another got.
    my ($name, $code) = @$_;
    pipe(my $read, my $write);
    my $pid = fork;
    if (!$pid) {
        # What one attempt mounts as root is no business of another.
        syscall(272, 0x00020000) if $arg{apart};
        my $r = eval { $code->() } || "died $@";
        syswrite $write, $r;
        close $write;
        syscall(231, 0);
    }
    close $write;
    local $/;
    my $r = <$read>;
    waitpid $pid, 0;
    $r =~ s/\s+/ /g;
    print "$name=$r\n";
}

my @open; # All connections at once: what drops packets costs its time only once.
for (@dials) {
    my ($name, $to) = @$_;
    my ($address, $port) = $to =~ /^(.*):(\d+)$/;
    socket(my $s, AF_INET, SOCK_STREAM, 0);
    fcntl($s, F_SETFL, O_NONBLOCK);
    my $r = connect($s, pack_sockaddr_in($port, inet_aton($address))) ? "done" : failed();
    if ($r eq "EINPROGRESS") { push @open, [$name, $to, $s] } else { print "dial.$name $to=$r\n" }
}
my $end = time + 3;
while (@open && time < $end) {
    my $want = "";
    vec($want, fileno($_->[2]), 1) = 1 for @open;
    select(undef, my $ready = $want, undef, 0.3);
    my @later;
    for (@open) {
        my ($name, $to, $s) = @$_;
        if (!vec($ready, fileno($s), 1)) { push @later, $_; next }
        $! = unpack("i", getsockopt($s, SOL_SOCKET, SO_ERROR));
        print "dial.$name $to=", ($! + 0 == 0 ? "done" : failed()), "\n";
    }
    @open = @later;
}
print "dial.$_->[0] $_->[1]=ETIMEDOUT\n" for @open;
