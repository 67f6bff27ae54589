//! Parsers for what systems print about themselves. Pure functions, tested on any system, on `tests/fixtures`.

#[cfg(any(target_os = "linux", test))]
pub(crate) mod linux;
#[cfg(any(target_os = "macos", test))]
pub(crate) mod macos;

/// The file of a loaded library, from `/proc/self/maps`; `name` is its file name up to the first dot.
pub(crate) fn loaded_library<'a>(maps: &'a str, name: &str) -> Option<&'a str> {
    maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).find(|path| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".so"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_library_is_found_by_its_name() {
        let maps = "55d0-55d1 r--p 00000000 fe:00 12 /usr/bin/hivemind\n\
                    7f00-7f01 rw-p 00000000 00:00 0\n\
                    7f02-7f03 r-xp 00000000 fe:00 15 /opt/my libs/libmlx_extra.so\n\
                    7f02-7f03 r-xp 00000000 fe:00 13 /opt/my libs/libmlx.so\n\
                    7f04-7f05 r-xp 00000000 fe:00 14 /usr/lib/libcudart.so.13.0.48\n\
                    7fff-7fff r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(loaded_library(maps, "libmlx"), Some("/opt/my libs/libmlx.so"));
        assert_eq!(loaded_library(maps, "libcudart"), Some("/usr/lib/libcudart.so.13.0.48"));
        assert_eq!(loaded_library(maps, "libcublas"), None);
    }
}
