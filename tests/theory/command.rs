//! `cargo lab theory`: its tables, its messages.

use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("theory {name} {}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn mixture(&self, text: &str) -> Result<String> {
        let path = self.0.join("M.toml");
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether it ended well, and what it said.
fn theory(folder: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consistency-cli"));
    let output = command.arg("theory").args(arguments).current_dir(folder).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

/// The header and the rows of the CSV that these arguments write.
fn csv(folder: &Folder, arguments: &[&str]) -> Result<(String, Vec<Vec<String>>)> {
    let all = [arguments, &["--csv", "out.csv"]].concat();
    let (good, said) = theory(&folder.0, &all)?;
    assert!(good && said.is_empty(), "{said}");
    let text = std::fs::read_to_string(folder.0.join("out.csv"))?;
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default().to_string();
    Ok((header, lines.map(|l| l.split(',').map(str::to_string).collect()).collect()))
}

const MASSES: &str = "weights = [1, 1, 1]\nmeans = [[-0.6], [0.1], [0.7]]\nstd = [0, 0, 0]\n";

#[test]
fn every_theorem_writes_its_columns() -> Result {
    let folder = Folder::new("columns")?;
    let file = folder.mixture(MASSES)?;
    let m = ["--mixture", &file];
    for solver in ["euler", "heun", "kutta3"] {
        for grid in ["karras", "uniform"] {
            let arguments =
                [&["theorem1"], &m[..], &["--solver", solver, "--grid", grid, "--points", "5,9"]];
            let (header, rows) = csv(&folder, &arguments.concat())?;
            assert_eq!(header, "points,delta_t,sup_error,local_slope");
            assert_eq!((rows.len(), rows[0][0].as_str(), rows[1][0].as_str()), (2, "5", "9"));
            assert!(rows[0][3].is_empty() && rows[1][3].parse::<f64>()?.is_finite(), "{rows:?}");
        }
    }
    for metric in ["l2-squared", "l2", "l1", "huber"] {
        let arguments = [&["theorem2"], &m[..], &["--metric", metric, "--points", "9,65"]];
        let target = ["--theta", "0.8,0.2,0.1", "--theta-minus", "-0.7,0.3,0"];
        let arguments = [&arguments.concat()[..], &target].concat();
        let (header, rows) = csv(&folder, &arguments)?;
        assert_eq!(header, "points,delta_t,l_cd,l_ct,difference,local_slope");
        let numbers: Vec<f64> = rows[1].iter().map(|v| v.parse()).collect::<Result<_, _>>()?;
        assert!((numbers[3] - numbers[2] - numbers[4]).abs() < 1e-9, "{rows:?}");
    }
    // Without one of its own, the target is the student.
    let student = [&["theorem2"], &m[..], &["--points", "9", "--theta", "0.7,-0.3,0"]].concat();
    let target = [&student[..], &["--theta-minus", "0.7,-0.3,0"]].concat();
    assert_eq!(csv(&folder, &student)?, csv(&folder, &target)?);
    for theorem in ["3", "4", "5", "6"] {
        let arguments = [&["limits", "--theorem", theorem], &m[..], &["--points", "17,33"]];
        let (header, rows) = csv(&folder, &arguments.concat())?;
        assert_eq!(header, "points,value,limit,relative_error,local_slope");
        assert_eq!(rows[0][2], rows[1][2], "one limit");
    }
    let options = ["--times", "0.5,2", "--batch", "4,16", "--samples", "200", "--seed", "1"];
    let (header, rows) = csv(&folder, &[&["lemma1"], &m[..], &options].concat())?;
    assert_eq!(header, "time,estimator,batch,bias,bias_ci,variance");
    let estimators: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    assert_eq!(estimators[..4], ["exact", "single", "minibatch", "minibatch"]);
    assert_eq!(rows.len(), 8);
    Ok(())
}

#[test]
fn mistakes_are_named() -> Result {
    let folder = Folder::new("mistakes")?;
    let file = folder.mixture("weights = [1]\nmeans = [[0.0, 0.1]]\nstd = [0.2]\n")?;
    let says = |arguments: &[&str], wanted: &[&str]| -> Result {
        let (good, said) = theory(&folder.0, arguments)?;
        assert!(!good, "{arguments:?} is no success: {said}");
        assert!(wanted.iter().all(|w| said.contains(w)), "{arguments:?} says {said}");
        assert!(!said.contains("panicked"), "{said}");
        Ok(())
    };
    says(&["theorem2", "--mixture", &file], &["2 dimensions", "over one"])?;
    says(&["limits", "--theorem", "3", "--mixture", &file], &["2 dimensions"])?;
    says(&["theorem1", "--mixture", "none.toml"], &["none.toml"])?;
    says(&["theorem1", "--mixture", &file, "--points", "1"], &["a grid of 1 points"])?;
    says(&["theorem1", "--mixture", &file, "--eps", "90"], &["eps = 90"])?;
    says(&["theorem1", "--mixture", &file, "--solver", "rk4"], &["rk4", "kutta3"])?;
    says(&["theorem2", "--mixture", &file, "--theta", "1,2"], &["--theta", "three"])?;
    says(&["lemma1", "--mixture", &file, "--times", "-1"], &["time = -1", "needs"])?;
    says(&["lemma1", "--mixture", &file, "--samples", "1"], &["samples = 1"])?;
    says(&["theorem1", "--mixture", &file, "--csv", "no/out.csv"], &["there is no folder no"])?;
    says(&["theorem1"], &["--mixture"])?;
    // Numbers without a sense, each by its option.
    for (arguments, wanted) in [
        ("theorem1 --eps nan", "eps = NaN: needs 1e-6 <= eps <= 1e6"),
        ("theorem1 --eps -1", "eps = -1: needs"),
        ("theorem1 --tmax inf", "t_max = inf: needs"),
        ("theorem1 --tmax 1e200", "t_max = 1e200: needs"),
        ("theorem1 --rho 1e300", "rho = 1e300: needs 0.1 <= rho <= 1000"),
        ("theorem1 --points 99999999999", "points = 99999999999: needs 2 <= points <= 1000000"),
        ("theorem2 --theta nan,0,0", "--theta: a = NaN: needs"),
        ("theorem2 --theta-minus 0,1e200,0", "--theta-minus: b = 1e200: needs"),
        ("theorem2 --metric huber --huber-c 1e-300", "--huber-c: c = 1e-300: needs"),
        ("limits --theorem 3 --points 18446744073709551615", "points = 18446744073709551615"),
        ("lemma1 --times 1e200", "time = 1e200: needs 1e-6 <= time <= 1e6"),
        ("lemma1 --times 2,nan", "time = NaN: needs"),
        ("lemma1 --batch 0", "batch = 0: needs 1 <= batch"),
        ("lemma1 --batch 99999999999", "batch = 99999999999: needs"),
        ("lemma1 --samples 99999999999", "samples = 99999999999: needs"),
    ] {
        let file = folder.mixture(MASSES)?;
        let mut all: Vec<&str> = arguments.split(' ').collect();
        all.extend(["--mixture", &file]);
        says(&all, &[wanted])?;
    }
    for (from, to, wanted) in [
        ("[1, 1, 1]", "[1, 1e308, 1e308]", "weights[1] = 1e308: needs"),
        ("[1, 1, 1]", "[1, 1, 0]", "weights[2] = 0: needs"),
        ("[1, 1, 1]", "[-1, 1, 1]", "weights[0] = -1: needs"),
        ("-0.6", "nan", "means[0][0] = NaN: needs -1e6"),
        ("0.1", "-inf", "means[1][0] = -inf: needs"),
        ("0.7", "1e300", "means[2][0] = 1e300: needs"),
        ("[0, 0, 0]", "[0, -0.1, 0]", "std[1] = -0.1: needs 0 <= std[1] <= 1e6"),
        ("[0, 0, 0]", "[0, 0, nan]", "std[2] = NaN: needs"),
    ] {
        let file = folder.mixture(&MASSES.replacen(from, to, 1))?;
        says(&["theorem1", "--mixture", &file], &["reading", "M.toml", wanted])?;
    }
    let file = folder.mixture("weights = [1, 2]\nmeans = [[0.0]]\nstd = [0.2]\n")?;
    says(&["theorem1", "--mixture", &file], &["M.toml", "2 weights"])?;
    let file = folder.mixture("weights = [1]\nmeans = [[0.0]]\nsigma = [0.2]\n")?;
    says(&["theorem1", "--mixture", &file], &["M.toml", "sigma"])?;
    Ok(())
}
