//! What Redis is asked: a command or a script, with its keys apart, because they say which node of a Cluster has it.

use redis::{Cmd, Script, ToRedisArgs};

/// A script, by its text and its name in Redis.
pub(super) struct Lua {
    text: &'static str,
    script: Script,
}

impl Lua {
    pub fn new(text: &'static str) -> Self {
        Self { text, script: Script::new(text) }
    }

    /// The script on this key.
    pub fn on(&'static self, key: String) -> Question {
        Question { what: What::Script(self), keys: vec![key], arguments: Vec::new() }
    }
}

/// Something to ask once.
pub(super) struct Question {
    what: What,
    /// All in one slot.
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum What {
    Command(&'static str),
    Script(&'static Lua),
}

impl Question {
    /// A command on this key.
    pub fn command(name: &'static str, key: String) -> Self {
        Self { what: What::Command(name), keys: vec![key], arguments: Vec::new() }
    }

    /// A command that any node answers.
    pub fn of_any(name: &'static str) -> Self {
        Self { what: What::Command(name), keys: Vec::new(), arguments: Vec::new() }
    }

    /// With one key more, which lies in the slot of the first one.
    pub fn key(mut self, key: String) -> Self {
        self.keys.push(key);
        self
    }

    /// With one argument more.
    pub fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        argument.write_redis_args(&mut self.arguments);
        self
    }

    /// The slot of the keys; `None` when there is none.
    pub fn slot(&self) -> Option<u16> {
        self.keys.first().map(|key| slot_of(key.as_bytes()))
    }

    /// The command as it is sent: a script by its name, which every node forgets at a restart and does not learn from a
    /// master it replaces.
    pub fn by_name(&self) -> Cmd {
        match self.what {
            What::Command(name) => self.put_behind(redis::cmd(name)),
            What::Script(lua) => self.counted(redis::cmd("EVALSHA").arg(lua.script.get_hash())),
        }
    }

    /// The same with the script's text, for a node that does not know the name; it knows it afterwards.
    pub fn in_full(&self) -> Option<Cmd> {
        match self.what {
            What::Command(_) => None,
            What::Script(lua) => Some(self.counted(redis::cmd("EVAL").arg(lua.text))),
        }
    }

    fn counted(&self, command: &mut Cmd) -> Cmd {
        self.put_behind(command.arg(self.keys.len()).to_owned())
    }

    fn put_behind(&self, mut command: Cmd) -> Cmd {
        command.arg(&self.keys).arg(&self.arguments);
        command
    }
}

/// Slots of a Cluster.
pub(super) const SLOTS: u16 = 16384;

/// The slot of a key: CRC-16/XMODEM of what stands between its first braces, or of all of it (Cluster specification).
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&b| b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|&b| b == b'}').filter(|&length| length > 0).map(|length| &rest[..length])
    });
    let crc = tag.unwrap_or(key).iter().fold(0u16, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // 0x31C3 is its test vector; the others were asked of a server by CLUSTER KEYSLOT.
        assert_eq!(slot_of(b"123456789"), 0x31C3);
        for (key, slot) in [("foo", 12182), ("{foo}bar", 12182), ("a{foo}b{c}", 12182), ("", 0), ("foo{}{bar}", 8363)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"), "the first braces count");
    }
}
