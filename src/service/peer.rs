//! Who is at the other end of a connection, as the kernel says it.

use std::os::unix::net::UnixStream;

/// True where the peer's process is of this user.
pub(super) fn is_of_this_user(stream: &UnixStream) -> bool {
    #[cfg(target_os = "linux")]
    {
        rustix::net::sockopt::socket_peercred(stream)
            .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
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

/// The process id of who bound the socket, or connected to it, where the system tells.
pub(super) fn pid(stream: &UnixStream) -> Option<u32> {
    #[cfg(target_os = "linux")]
    {
        let peer = rustix::net::sockopt::socket_peercred(stream).ok()?;
        u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream;
        None
    }
}
