//! Where an experiment finds its teacher: among the runs beside its own, or published.

use super::config::Experiment;
use super::data::Data;
use super::folder::RunFolder;
use super::rows::Split;
use super::shipped::SHIPPED;
use super::trained::Trained;
use crate::method::{Teachers, Weights};
use crate::model::Pretrained;
use crate::model::pretrained::{Kind, Teacher};
use crate::process::Empirical;
use crate::{Context, Result, ensure};
use candle_core::Device;
use std::path::Path;

/// The name of the exact denoiser of the student's own data.
pub(crate) const EXACT: &str = "exact";

/// The teachers of `student`, which trains on the part of `data` that `split` says; `runs` is the folder of the runs.
pub(super) struct Found<'a> {
    pub student: &'a Experiment,
    pub data: &'a Data,
    pub split: &'a Split,
    pub runs: &'a Path,
    pub device: &'a Device,
}

impl Teachers for Found<'_> {
    fn find(&self, name: &str) -> Result<(Teacher, Option<Weights>)> {
        if name == EXACT {
            return Ok((Teacher::Exact(self.exact().context("the exact teacher")?), None));
        }
        // A run's folder has a plain name.
        if name.contains('/') || Path::new(name).is_file() {
            return self.published(name).with_context(|| format!("the teacher {name}"));
        }
        let trained = finished(self.runs, name)?;
        trained.check_beginning_of(self.student, "teacher")?;
        let weights = Weights(trained.params().clone());
        let trained = trained.on(self.device, self.student.training.settings())?;
        Ok((Teacher::Edm(trained.denoiser()?), Some(weights)))
    }
}

/// The finished run `name` in `runs`, or with `shipped:NAME` a network that comes with the lab.
pub(super) fn finished(runs: &Path, name: &str) -> Result<Trained> {
    match name.strip_prefix(SHIPPED) {
        Some(shipped) => Trained::shipped(shipped),
        None => RunFolder::open(&runs.join(name))?.trained(),
    }
}

impl Found<'_> {
    fn exact(&self) -> Result<Empirical> {
        ensure!(
            self.student.network.classes().is_none(),
            "it knows no classes: leave num_class_embeds out"
        );
        Empirical::new(&self.split.trained_of(self.data)?)
    }

    fn published(&self, name: &str) -> Result<(Teacher, Option<Weights>)> {
        let teacher = Pretrained::open(name)?;
        ensure!(
            teacher.shape() == self.data.shape(),
            "its images are {:?}, the data {:?} (channels, height, width)",
            teacher.shape(),
            self.data.shape()
        );
        let own = self.student.network.classes();
        ensure!(
            self.student.training.unlabelled == 0.0,
            "training.unlabelled: this teacher was not trained without classes; leave it out"
        );
        ensure!(
            teacher.classes() == own,
            "it knows {:?} classes, the student {own:?}",
            teacher.classes()
        );
        let weights = match *teacher.kind() {
            Kind::Edm { sigma_data } => {
                let own = self.student.sigma_data;
                ensure!(sigma_data == own, "it has sigma_data = {sigma_data}, the student {own}");
                Some(Weights(teacher.params().clone()))
            }
            // A network that predicts noise takes other inputs: its weights are no starting point.
            _ => None,
        };
        Ok((teacher.to_device(self.device)?.teacher()?, weights))
    }
}
