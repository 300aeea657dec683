//! kitty's graphics protocol: a PNG in pieces of base64.

use crate::render::base64::base64;

/// The longest piece the protocol allows.
const PIECE: usize = 4096;

/// The picture, `columns` wide and as high as that makes it. The terminal is asked not to answer.
pub(super) fn encode(png: &[u8], columns: usize) -> String {
    let text = base64(png);
    let pieces = text.len().div_ceil(PIECE).max(1);
    let mut out = String::with_capacity(text.len() + 16 * pieces + 32);
    for piece in 0..pieces {
        let keys = if piece == 0 { format!("a=T,f=100,q=2,c={columns},") } else { String::new() };
        let more = u8::from(piece + 1 < pieces);
        let part = &text[piece * PIECE..text.len().min((piece + 1) * PIECE)];
        out += &format!("\x1b_G{keys}m={more};{part}\x1b\\");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_picture_is_one_piece() {
        assert_eq!(encode(b"foo", 80), "\x1b_Ga=T,f=100,q=2,c=80,m=0;Zm9v\x1b\\");
        assert_eq!(encode(b"", 1), "\x1b_Ga=T,f=100,q=2,c=1,m=0;\x1b\\");
    }

    #[test]
    fn a_large_one_comes_in_pieces_of_the_same_text() {
        let png: Vec<u8> = (0..=255).cycle().take(9000).collect();
        let text = encode(&png, 80);
        let pieces: Vec<&str> = text.split_terminator("\x1b\\").collect();
        assert_eq!(pieces.len(), 3);
        assert!(pieces[0].starts_with("\x1b_Ga=T,f=100,q=2,c=80,m=1;"));
        assert!(pieces[1].starts_with("\x1b_Gm=1;") && pieces[2].starts_with("\x1b_Gm=0;"));
        let joined: String = pieces.iter().map(|piece| piece.split_once(';').unwrap().1).collect();
        assert_eq!(joined, base64(&png));
        assert!(pieces.iter().all(|piece| piece.split_once(';').unwrap().1.len() <= PIECE));
    }
}
