//! Golden files: what goes over the wire, byte for byte.
//!
//! Each example of a message has a file, in a folder that is named after the number of the protocol. Bytes are kept as hex
//! digits, JSON as it is sent. What holds: an example is written as its file has it, the file is read as the example, every
//! variant of an enum has an example, and no file is without one. So a change that other versions do not understand needs
//! another number, and with it another folder.
//!
//! With `HIVEMIND_WRITE_WIRE` set, files that are missing are written. None is ever replaced.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Digits on a line.
const LINE: usize = 120;

/// The golden files of one protocol.
pub(crate) struct Golden {
    folder: PathBuf,
    /// Where the number of the protocol stands.
    number: &'static str,
    /// Files that belong to an example.
    known: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Golden {
    /// Those in a folder. `number` says where the number of the protocol stands.
    pub(crate) fn open(folder: PathBuf, number: &'static str) -> Self {
        Self { folder, number, known: BTreeSet::new(), wrong: Vec::new() }
    }

    /// Compares a message that travels as postcard.
    pub(crate) fn postcard<T: Serialize + DeserializeOwned + PartialEq>(&mut self, name: &str, message: &T) {
        let bytes = postcard::to_stdvec(message).unwrap();
        self.bytes(name, &bytes, |bytes| postcard::from_bytes::<T>(bytes).is_ok_and(|read| read == *message));
    }

    /// Compares messages of an enum that travel as postcard, of which there must be one for every variant.
    pub(crate) fn postcard_enum<T: Serialize + DeserializeOwned + PartialEq + Debug>(
        &mut self,
        examples: impl IntoIterator<Item = (String, T)>,
    ) {
        let mut places = BTreeSet::new();
        for (name, message) in examples {
            places.insert(postcard::to_stdvec(&message).unwrap()[0]);
            self.postcard(&name, &message);
        }
        let count = places.len() as u8;
        assert!(places.into_iter().eq(0..count), "a variant of {} has no example", std::any::type_name::<T>());
        // A place that no variant has is refused before anything behind it is read.
        let beyond = postcard::from_bytes::<T>(&[count]);
        let is_last = beyond.as_ref().is_err_and(|error| *error == postcard::Error::SerdeDeCustom);
        assert!(is_last, "the last variant of {} has no example", std::any::type_name::<T>());
    }

    /// Compares bytes; `reads` says whether bytes are read as the message they stand for.
    pub(crate) fn bytes(&mut self, name: &str, bytes: &[u8], reads: impl FnOnce(&[u8]) -> bool) {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let lines: Vec<&str> =
            (0..digits.len()).step_by(LINE).map(|at| &digits[at..(at + LINE).min(digits.len())]).collect();
        self.file(&format!("{name}.hex"), &lines.join("\n"), |text| {
            let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            reads(&digits.chunks(2).map(byte).collect::<Vec<_>>())
        });
    }

    /// Compares JSON; `reads` says whether a text is read as the message it stands for.
    pub(crate) fn json(&mut self, name: &str, text: &str, reads: impl FnOnce(&str) -> bool) {
        self.file(&format!("{name}.json"), text, reads);
    }

    fn file(&mut self, name: &str, text: &str, reads: impl FnOnce(&str) -> bool) {
        assert!(self.known.insert(name.to_owned()), "{name} belongs to two examples");
        let path = self.folder.join(name);
        if std::env::var_os("HIVEMIND_WRITE_WIRE").is_some() && !path.exists() {
            fs::create_dir_all(&self.folder).unwrap();
            fs::write(&path, format!("{text}\n")).unwrap();
        }
        match fs::read_to_string(&path) {
            Err(_) => self.wrong.push(format!("{name}: there is no such file")),
            Ok(golden) if golden.trim_end() != text => {
                self.wrong.push(format!("{name}: the message is written as\n  {text}\nand the file has\n  {golden}"));
            }
            Ok(golden) if !reads(golden.trim_end()) => self.wrong.push(format!("{name}: is not read as the message")),
            Ok(_) => {}
        }
    }

    /// Says what is wrong, if anything is.
    pub(crate) fn finish(mut self) {
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if !self.known.contains(&name) {
                self.wrong.push(format!("{name}: no message is written as this any more"));
            }
        }
        let Self { folder, number, wrong, .. } = self;
        let folder = folder.display();
        assert!(
            wrong.is_empty(),
            "{}\n\n\
            Machines of different versions talk to each other by these bytes: {folder}\n\
            - A new variant goes to the end of its enum. Run the test with HIVEMIND_WRITE_WIRE=1 to write its file.\n\
            - A new field of a JSON message has a default. Remove the message's file, then write it in the same way.\n\
            - Anything else (another order, another type, a field more or less, a variant less) is another protocol. Raise \
            {number}, then write its folder in the same way and remove this one.",
            wrong.join("\n")
        );
    }
}
