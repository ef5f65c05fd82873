//! Management tools, honest ones and one that wants to store where it may only look.

use std::fs::{File, OpenOptions, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use frontend_kvm::control::client::Client;
use frontend_kvm::control::wire::{Ask, Frame};
use frontend_kvm::socket::receive_fd;
use frontend_kvm::sys::MemFd;

use super::roles::{argument, become_who, say};
use super::sys;

/// Asks what VM it is. Arguments: who asks, the socket.
pub(crate) fn manage(arguments: &[&str]) -> Result<(), String> {
    become_who(arguments)?;
    let socket = Path::new(argument(arguments, 1)?);
    let mut client = Client::connect(socket).map_err(|e| e.to_string())?;
    match client.about() {
        Ok(seen) => say(&format!("pages {}", seen.pages)),
        Err(why) => say(&format!("refused {why}")),
    }
    Ok(())
}

/// Takes the view file and tries to make it writable. Arguments: who tries, the socket.
pub(crate) fn store_into_the_view(arguments: &[&str]) -> Result<(), String> {
    become_who(arguments)?;
    // Of a file of our own the same steps do it.
    let own = MemFd::create(c"own", 1).and_then(|own| {
        let own = std::os::fd::AsFd::as_fd(&own).try_clone_to_owned();
        own.map_err(|e| frontend_kvm::SysError::io("dup", &e))
    });
    let own = File::from(own.map_err(|e| e.to_string())?);
    own.set_permissions(Permissions::from_mode(0o400)).map_err(|e| e.to_string())?;
    say(&format!("own {}", becomes_writable(&own)));
    let mut socket = UnixStream::connect(argument(arguments, 1)?).map_err(|e| e.to_string())?;
    Frame::new(Ask::View, 0, 0).send(&mut socket, &[]).map_err(|e| e.to_string())?;
    let mut bytes = [0; size_of::<Frame>()];
    let (_, view) = receive_fd(&socket, &mut bytes).map_err(|e| e.to_string())?;
    say(&format!("view {}", becomes_writable(&File::from(view.ok_or("no view came")?))));
    Ok(())
}

/// Whether any way leads from this descriptor to one that can be stored through.
fn becomes_writable(file: &File) -> bool {
    let _ = std::os::unix::fs::fchown(file, Some(0), Some(0));
    let _ = file.set_permissions(Permissions::from_mode(0o777));
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = OpenOptions::new().read(true).write(true).open(path);
    sys::maps_for_storing(file) || again.is_ok_and(|again| sys::maps_for_storing(&again))
}
