//! The credentials of the process at the other end of a connection, from the kernel.

use std::os::unix::net::UnixStream;

/// Returns the credentials that the peer had when it connected or bound the socket.
///
/// For a process of another pid namespace, such as a container's, the process id is 0. So
/// `rustix::net::sockopt::socket_peercred` must not be used: its process id is never 0.
#[cfg(target_os = "linux")]
fn credentials(stream: &UnixStream) -> Option<libc::ucred> {
    use std::os::fd::AsRawFd;
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let size = size_of_val(&peer);
    let mut length = libc::socklen_t::try_from(size).ok()?;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, `peer` has room
    // for `length` bytes, and every bit pattern is a valid `ucred`.
    #[expect(unsafe_code, reason = "std lacks this call, and rustix lacks the id 0")]
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    (result == 0 && usize::try_from(length) == Ok(size)).then_some(peer)
}

/// Returns true if the peer's process belongs to the user of this process.
pub(super) fn is_same_user(stream: &UnixStream) -> bool {
    #[cfg(target_os = "linux")]
    {
        credentials(stream).is_some_and(|peer| peer.uid == rustix::process::geteuid().as_raw())
    }
    #[cfg(not(target_os = "linux"))]
    {
        use std::os::fd::AsRawFd;
        let (mut uid, mut gid) = (0, 0);
        // SAFETY: the descriptor is open for as long as `stream` is borrowed, and
        // both pointers are to variables of the right types.
        #[expect(unsafe_code, reason = "neither std nor rustix has this call here")]
        let result = unsafe { libc::getpeereid(stream.as_raw_fd(), &mut uid, &mut gid) };
        result == 0 && uid == rustix::process::geteuid().as_raw()
    }
}

/// Returns the id of the process that bound the socket or connected to it, if the system
/// reports it.
pub(super) fn pid(stream: &UnixStream) -> Option<u32> {
    #[cfg(target_os = "linux")]
    {
        let peer = credentials(stream)?;
        u32::try_from(peer.pid).ok().filter(|pid| *pid != 0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream;
        None
    }
}
