//! What a model, a file name or a tensor name may say to do harm to a terminal or to its reader.

/// A text that must not reach a terminal as it is.
#[derive(Debug, Clone, Copy)]
pub struct Hostile {
    /// What it is.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
    /// What may be shown of it.
    pub shown: &'static str,
}

const fn hostile(name: &'static str, text: &'static str, shown: &'static str) -> Hostile {
    Hostile { name, text, shown }
}

/// Sixty of them. None has a line end, so that they fit wherever a name fits; except where `shown`
/// says otherwise nothing is left of them.
pub const HOSTILE: [Hostile; 60] = [
    // Operating system commands.
    hostile("clipboard, BEL", "\x1b]52;c;cm0gLXJmIC8=\x07", ""),
    hostile("clipboard, ST", "\x1b]52;c;cm0gLXJmIC8=\x1b\\", ""),
    hostile("clipboard, C1", "\u{9d}52;c;cm0gLXJmIC8=\u{9c}", ""),
    hostile("clipboard query", "\x1b]52;c;?\x07", ""),
    hostile("window title", "\x1b]0;owned\x07", ""),
    hostile("icon name", "\x1b]1;owned\x1b\\", ""),
    hostile("hyperlink", "\x1b]8;id=1;https://evil.example/\x1b\\bank\x1b]8;;\x1b\\", "bank"),
    hostile("ConEmu runs a program", "\x1b]9;7;\"calc.exe\"\x07", ""),
    hostile("iTerm2 notification", "\x1b]9;you have mail\x07", ""),
    hostile("kitty notification", "\x1b]99;i=1:d=0:a=focus;click\x1b\\", ""),
    hostile("rxvt notification", "\x1b]777;notify;bank;click\x07", ""),
    hostile("iTerm2 file", "\x1b]1337;File=name=eA==;size=4;inline=1:AAAA\x07", ""),
    hostile("iTerm2 sets a variable", "\x1b]1337;SetUserVar=x=eA==\x07", ""),
    hostile("working directory", "\x1b]7;file://evil.example/\x07", ""),
    hostile("shell integration", "\x1b]133;C\x07rm\x1b]133;D;0\x07", "rm"),
    hostile("palette", "\x1b]4;1;rgb:00/00/00\x07", ""),
    hostile("colour query", "\x1b]11;?\x1b\\", ""),
    hostile("colours reset", "\x1b]104\x07", ""),
    // Control sequences proper.
    hostile("colour", "\x1b[38;2;255;0;0m", ""),
    hostile("conceal", "\x1b[8mhidden\x1b[28m", "hidden"),
    hostile("erase screen", "\x1b[2J", ""),
    hostile("erase scrollback", "\x1b[3J", ""),
    hostile("erase screen, C1", "\u{9b}2J", ""),
    hostile("cursor home", "\x1b[H", ""),
    hostile("cursor up and erase", "\x1b[1A\x1b[2K", ""),
    hostile("scroll region", "\x1b[5;10r", ""),
    hostile("alternate screen", "\x1b[?1049h", ""),
    hostile("mouse on", "\x1b[?1000;1006h", ""),
    hostile("cursor hidden", "\x1b[?25l", ""),
    hostile("bracketed paste off", "\x1b[?2004l", ""),
    hostile("end of paste", "\x1b[201~rm -rf ~\x1b[200~", "rm -rf ~"),
    hostile("focus reports", "\x1b[?1004h", ""),
    hostile("keyboard protocol", "\x1b[>31u", ""),
    hostile("device attributes", "\x1b[c", ""),
    hostile("cursor position report", "\x1b[6n", ""),
    hostile("title report", "\x1b[21t", ""),
    hostile("checksum report", "\x1b[1;1;1;1;24;80*y", ""),
    hostile("window moved", "\x1b[3;9999;9999t", ""),
    hostile("repeat the last character", "\x1b[999999999b", ""),
    hostile("soft reset", "\x1b[!p", ""),
    hostile("cursor shape", "\x1b[5 q", ""),
    hostile("control characters inside", "\x1b[3\x081\x00;4\x7f1\x0dm", ""),
    // Device control and other strings.
    hostile("DECRQSS", "\x1bP$q\"p\x1b\\", ""),
    hostile("XTGETTCAP", "\x1bP+q544e\x1b\\", ""),
    hostile("sixel", "\x1bPq#0;2;100;0;0#0~~@@vv\x1b\\", ""),
    hostile("user-defined keys, C1", "\u{90}0;1|17/6c730d\u{9c}", ""),
    hostile("through tmux", "\x1bPtmux;\x1b\x1b]52;c;cm0=\x07\x1b\\", ""),
    hostile("kitty graphics", "\x1b_Gf=24,s=1,v=1,t=t;L2V0Yy9wYXNzd2Q=\x1b\\", ""),
    hostile("privacy message", "\x1b^secret\x1b\\", ""),
    hostile("start of string, C1", "\u{98}secret\u{9c}", ""),
    hostile("title of screen", "\x1bkowned\x1b\\", ""),
    // Escape sequences.
    hostile("reset", "\x1bc", ""),
    hostile("graphics character set", "\x1b(0", ""),
    hostile("all E", "\x1b#8", ""),
    hostile("leave UTF-8", "\x1b%@", ""),
    hostile("locking shift", "\x0e\x0f\x1bn", ""),
    // Characters.
    hostile(
        "overstrike",
        "safe\x08\x08\x08\x08evil\x0dgood\x7f\x0b\x0c\x00\x05\x07",
        "safeevilgood",
    ),
    hostile("right to left", "a\u{202e}txt.exe\u{202c}\u{2066}\u{2069}\u{200f}", "atxt.exe"),
    hostile("hidden by tags", "x\u{e0001}\u{e0069}\u{e0067}\u{e007f}\u{feff}y", "xy"),
    hostile("invisible", "pass\u{200b}word\u{ad}\u{2060}\u{2063}\u{206a}\u{fff9}", "password"),
];

/// Whether `c` must never be among what is shown: C0 but line ends, DEL, C1, and what reorders or
/// hides text.
pub fn is_forbidden(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2028}'..='\u{2029}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The first place of `text` that must not be shown, with what follows.
pub fn forbidden(text: &str) -> Option<&str> {
    text.find(is_forbidden).map(|place| &text[place..])
}
