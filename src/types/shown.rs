//! Which characters of a text that others have written are shown: none that changes how the rest of the line is read. Pure.

/// Neither a control character nor one of Unicode's format characters (general category Cf, Unicode 16), which turn the direction of a
/// line, hide a part of it or join it to another.
pub fn is_shown(character: char) -> bool {
    const FORMAT: [(u32, u32); 21] = [
        (0xAD, 0xAD),
        (0x600, 0x605),
        (0x61C, 0x61C),
        (0x6DD, 0x6DD),
        (0x70F, 0x70F),
        (0x890, 0x891),
        (0x8E2, 0x8E2),
        (0x180E, 0x180E),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x2064),
        (0x2066, 0x206F),
        (0xFEFF, 0xFEFF),
        (0xFFF9, 0xFFFB),
        (0x110BD, 0x110BD),
        (0x110CD, 0x110CD),
        (0x13430, 0x1343F),
        (0x1BCA0, 0x1BCA3),
        (0x1D173, 0x1D17A),
        (0xE0001, 0xE0001),
        (0xE0020, 0xE007F),
    ];
    let code = u32::from(character);
    // Line and paragraph separators are white space to Rust and no control characters.
    let breaks_line = matches!(character, '\u{2028}' | '\u{2029}');
    !character.is_control() && !breaks_line && !FORMAT.iter().any(|(first, last)| (*first..=*last).contains(&code))
}
