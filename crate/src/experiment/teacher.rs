//! Where an experiment finds its teacher: among the runs beside its own, or published.

use super::config::Experiment;
use super::run::RunFolder;
use crate::method::{Teachers, Weights};
use crate::model::Pretrained;
use crate::model::pretrained::{Kind, Teacher};
use crate::{Context, Result, ensure};
use candle_core::Device;
use std::path::Path;

/// The teachers of `student`, whose samples have `shape`; `runs` is the folder of the runs.
pub(super) struct Found<'a> {
    pub student: &'a Experiment,
    pub shape: &'a [usize],
    pub runs: &'a Path,
    pub device: &'a Device,
}

impl Teachers for Found<'_> {
    fn find(&self, name: &str) -> Result<(Teacher, Option<Weights>)> {
        // A run's folder has a plain name.
        if name.contains('/') || Path::new(name).is_file() {
            return self.published(name).with_context(|| format!("the teacher {name}"));
        }
        let trained = RunFolder::open(&self.runs.join(name))?.trained()?;
        // A student starts from the teacher's weights: the networks are alike.
        trained.check_teacher_of(self.student)?;
        let weights = Weights(trained.params().clone());
        let trained = trained.on(self.device, self.student.training.settings())?;
        Ok((Teacher::Edm(trained.denoiser()?), Some(weights)))
    }
}

impl Found<'_> {
    fn published(&self, name: &str) -> Result<(Teacher, Option<Weights>)> {
        let teacher = Pretrained::open(name)?;
        ensure!(
            teacher.shape() == self.shape,
            "its images are {:?}, the data {:?} (channels, height, width)",
            teacher.shape(),
            self.shape
        );
        let own = self.student.network.classes();
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
            // A network that predicts noise is given other numbers: its weights are no start.
            _ => None,
        };
        Ok((teacher.to_device(self.device)?.teacher()?, weights))
    }
}
