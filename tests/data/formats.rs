//! The formats that are read. The fixtures hold the tests' own pixels as Pillow wrote them.

use crate::given::{Folder, fixture, message, pixel, png_of, values, write_parquet};
use consistency::Result;

fn pixels(row: usize, [c, h, w]: [usize; 3]) -> Vec<u8> {
    (0..c * h * w).map(|i| pixel(row, i / (h * w), i / w % h, i % w)).collect()
}

#[test]
fn every_format_gives_the_same_pixels() -> Result<()> {
    let folder = Folder::new("formats")?;
    let (colour, grey) = (pixels(1, [3, 4, 6]), pixels(2, [1, 4, 6]));
    for (name, shape, expected) in [
        ("colour.bmp", [3, 4, 6], &colour),
        ("colour.tif", [3, 4, 6], &colour),
        // Of two frames the first.
        ("colour.gif", [3, 4, 6], &colour),
        ("colour.webp", [3, 4, 6], &colour),
        ("grey.bmp", [1, 4, 6], &grey),
        ("grey.tif", [1, 4, 6], &grey),
        ("grey.gif", [1, 4, 6], &grey),
    ] {
        let bytes = fixture(name)?;
        let (parquet, inner) = (format!("{name}.parquet"), name.replace('.', "-"));
        write_parquet(&folder.at(&parquet), "image", std::slice::from_ref(&bytes), &[0])?;
        std::fs::create_dir_all(folder.at(&inner))?;
        std::fs::write(folder.at(&inner).join(name), &bytes)?;
        for dataset in [folder.find(&parquet)?, folder.find(&inner)?] {
            assert_eq!(dataset.entry().shape, shape, "{name}");
            assert_eq!(&values(dataset.split("train")?.pixels())?, expected, "{name}");
        }
        // Cut anywhere, it is named and nothing else happens.
        for end in [30, 50, bytes.len() - 30] {
            std::fs::write(folder.at(&inner).join(name), &bytes[..end.min(bytes.len() / 2)])?;
            let error = message(folder.find(&inner));
            assert!(error.contains(name), "{error}");
        }
    }
    Ok(())
}

#[test]
fn webp_with_loss_is_near_to_what_it_was_made_of() -> Result<()> {
    let folder = Folder::new("webp")?;
    write_parquet(&folder.at("q.parquet"), "image", &[fixture("quadrants.webp")?], &[0])?;
    write_parquet(&folder.at("j.parquet"), "image", &[fixture("quadrants.jpg")?], &[0])?;
    let (webp, jpeg) = (folder.find("q.parquet")?, folder.find("j.parquet")?);
    let (webp, jpeg) = (webp.split("train")?, jpeg.split("train")?);
    assert_eq!(webp.shape(), [3, 32, 48]);
    let (a, b) = (values(webp.pixels())?, values(jpeg.pixels())?);
    // Away from the edges of the four fields, which both blur.
    let inside =
        |i: usize| ![14, 15, 16, 17].contains(&(i / 48 % 32)) && !(22..26).contains(&(i % 48));
    let worst = (0..a.len()).filter(|i| inside(*i)).map(|i| a[i].abs_diff(b[i])).max();
    assert!(worst.is_some_and(|worst| worst < 12), "{worst:?}");
    Ok(())
}

#[test]
fn an_orientation_in_exif_is_not_applied() -> Result<()> {
    let folder = Folder::new("exif")?;
    let plain = fixture("quadrants.jpg")?;
    // "Rotate by 90 degrees": the one entry of a little directory.
    let mut segment =
        b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    let length = (segment.len() as u16 + 2).to_be_bytes();
    segment.splice(0..0, [0xff, 0xe1, length[0], length[1]]);
    let mut turned = plain.clone();
    turned.splice(2..2, segment);
    for (name, bytes) in [("plain", plain), ("turned", turned)] {
        std::fs::create_dir_all(folder.at(name))?;
        std::fs::write(folder.at(name).join("1.jpg"), bytes)?;
    }
    let (plain, turned) = (folder.find("plain")?, folder.find("turned")?);
    let (plain, turned) = (plain.split("train")?, turned.split("train")?);
    assert_eq!(turned.shape(), [3, 32, 48]);
    assert_eq!(values(turned.pixels())?, values(plain.pixels())?);
    Ok(())
}

#[test]
fn what_is_no_image_is_called_what_it_is() -> Result<()> {
    let folder = Folder::new("no-image")?;
    let good = png_of(0, [1, 4, 6])?;
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let cases: [(&str, &[u8], &str); 8] = [
        ("avif", b"\0\0\0\x20ftypavif\0\0\0\0", "image format that is read: AVIF (16 bytes)"),
        ("heic", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        ("jxl", b"\xff\x0a\xfa\x7f", "JPEG XL"),
        ("numpy", b"\x93NUMPY\x01\0", "a NumPy array"),
        ("nothing", b"", "nothing (0 bytes)"),
        ("path", b"images/0.png", "not an image: the text \"images/0.png\""),
        ("noise", b"\x01\x02\x03\x04\x05", "it begins with the bytes 01 02 03 04"),
        ("pointer", pointer, "run `git lfs pull`"),
    ];
    for (name, bad, words) in cases {
        // First of all, and after a good one.
        let file = format!("{name}.parquet");
        write_parquet(&folder.at(&file), "image", &[bad.to_vec(), good.clone()], &[0, 1])?;
        let error = message(folder.find(&file));
        assert!(error.contains(&format!("{file}, row 0: ")) && error.contains(words), "{error}");
        write_parquet(&folder.at(&file), "image", &[good.clone(), bad.to_vec()], &[0, 1])?;
        let error = message(folder.find(&file)?.split("train"));
        assert!(error.contains(&format!("{file}, row 1: ")) && error.contains(words), "{error}");
        if name != "pointer" {
            assert!(error.contains("PNG, JPEG, WebP, BMP, TIFF and GIF are read"), "{error}");
        }
        std::fs::create_dir_all(folder.at(name))?;
        std::fs::write(folder.at(name).join("1.png"), bad)?;
        let error = message(folder.find(name));
        assert!(error.contains("1.png") && error.contains(words), "{error}");
    }
    std::fs::write(folder.at("lfs.parquet"), pointer)?;
    let error = message(folder.find("lfs.parquet"));
    assert!(error.contains("lfs.parquet is a pointer of Git LFS"), "{error}");
    assert!(error.contains("run `git lfs pull`"), "{error}");
    Ok(())
}
