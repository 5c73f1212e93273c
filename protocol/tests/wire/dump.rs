//! Annotated hex dumps.

/// The bytes of a dump. `#` begins a comment; `ab*32` is 32 times the byte `ab`.
pub(crate) fn bytes(dump: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in dump
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace())
    {
        let (byte, times) = word.split_once('*').unwrap_or((word, "1"));
        assert_eq!(byte.len(), 2, "{word:?} is not a byte");
        let byte = u8::from_str_radix(byte, 16).unwrap();
        bytes.resize(bytes.len() + times.parse::<usize>().unwrap(), byte);
    }
    bytes
}

/// A number as the wire has it, made without the codec.
pub(crate) fn number(value: u64) -> Vec<u8> {
    match value {
        0..=250 => vec![value as u8],
        251..=0xffff => [&[0xfb][..], &(value as u16).to_le_bytes()].concat(),
        0x1_0000..=0xffff_ffff => [&[0xfc][..], &(value as u32).to_le_bytes()].concat(),
        _ => [&[0xfd][..], &value.to_le_bytes()].concat(),
    }
}
