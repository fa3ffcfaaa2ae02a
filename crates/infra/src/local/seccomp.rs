//! System calls that nothing in a sandbox may make, as a filter that refuses them with `EPERM`.
//!
//! What is refused is what a database never needs and a break-out would: other address families
//! than IP and local sockets, mounting, namespaces, tracing, loading code into the kernel, keys,
//! and io_uring, which would go around this filter.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::failure::rejected;
use crate::error::Result;

/// Calls refused whatever their arguments are.
const REFUSED: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
];

/// Namespaces that a new process may not be given.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// The same calls under the numbers of the x32 interface.
#[cfg(target_arch = "x86_64")]
const SECOND_INTERFACE: Option<i64> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const SECOND_INTERFACE: Option<i64> = None;

/// The filters, in the order in which they are to be installed.
pub(super) fn filters() -> Result<Vec<BpfProgram>> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    refused.insert(libc::SYS_socket, socket_rules()?);
    refused.insert(libc::SYS_socketpair, socket_rules()?);
    refused.insert(libc::SYS_clone, clone_rules()?);
    if let Some(bit) = SECOND_INTERFACE {
        for (call, rules) in refused.clone() {
            refused.insert(call | bit, rules);
        }
    }
    // Its flags lie in memory, which a filter cannot read; told that it does not exist, the C
    // library goes back to `clone`.
    let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![
        compile(refused, libc::EPERM)?,
        compile(hidden, libc::ENOSYS)?,
    ])
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, answer: libc::c_int) -> Result<BpfProgram> {
    let what = "compile seccomp filter";
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| rejected(what, e))?;
    let refuse = SeccompAction::Errno(answer.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
        .map_err(|e| rejected(what, e))?;
    BpfProgram::try_from(filter).map_err(|e| rejected(what, e))
}

/// Refuses every family but local, IP, and netlink for asking about routes and addresses.
fn socket_rules() -> Result<Vec<SeccompRule>> {
    let family = |op, value: libc::c_int| condition(0, op, value);
    let allowed = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    let foreign: Result<Vec<_>> = allowed
        .iter()
        .map(|f| family(SeccompCmpOp::Ne, *f))
        .collect();
    let netlink = vec![
        family(SeccompCmpOp::Eq, libc::AF_NETLINK)?,
        condition(2, SeccompCmpOp::Ne, libc::NETLINK_ROUTE)?,
    ];
    [foreign?, netlink].into_iter().map(rule).collect()
}

fn clone_rules() -> Result<Vec<SeccompRule>> {
    NAMESPACES
        .iter()
        .map(|flag| {
            let bit = u64::from(flag.unsigned_abs());
            rule(vec![condition(0, SeccompCmpOp::MaskedEq(bit), *flag)?])
        })
        .collect()
}

fn condition(argument: u8, op: SeccompCmpOp, value: libc::c_int) -> Result<SeccompCondition> {
    let value = u64::from(value.unsigned_abs());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
        .map_err(|e| rejected("compile seccomp filter", e))
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(|e| rejected("compile seccomp filter", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    /// A filter binds the thread that installs it, so the test's other threads stay free.
    #[test]
    fn refuses_what_breaks_out_and_lets_databases_work() {
        let thread = std::thread::spawn(|| {
            for filter in filters().unwrap() {
                seccompiler::apply_filter(&filter).unwrap();
            }
            let open = |family, kind| socket(family, kind, SockFlag::empty(), None).map(drop);
            assert_eq!(
                open(AddressFamily::Vsock, SockType::Stream),
                Err(Errno::EPERM)
            );
            assert_eq!(
                open(AddressFamily::Packet, SockType::Raw),
                Err(Errno::EPERM)
            );
            assert_eq!(open(AddressFamily::Inet, SockType::Stream), Ok(()));
            assert_eq!(open(AddressFamily::Unix, SockType::Stream), Ok(()));
            assert_eq!(
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER),
                Err(Errno::EPERM)
            );
            assert_eq!(nix::unistd::chroot("/"), Err(Errno::EPERM));
            // A thread is still made: by `clone` without namespaces.
            std::thread::spawn(|| 7).join().unwrap()
        });
        assert_eq!(thread.join().unwrap(), 7);
    }
}
