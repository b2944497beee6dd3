//! The students by name: an architecture, and after it what is not as usual, for example `convnet-d4-w256-group`.

use std::fmt;
use std::str::FromStr;

use candle_nn::VarBuilder;

use super::{
    AlexNet, AlexNetConfig, Classifier, ConvNet, ConvNetConfig, ConvNetSize, LeNet, Mlp, MlpConfig, NormKind, ResNet,
    ResNetConfig, Vgg, VggConfig, Vit, VitConfig,
};
use crate::error::{Error, Result};
use crate::fail;
use crate::nearest::nearest;
use crate::nn::count;

/// The greatest depth and width that a name can state.
const MAX_DEPTH: usize = 32;
const MAX_WIDTH: usize = 4096;
/// What a student may have: 2 GiB.
const MOST_PARAMETERS: usize = 1 << 29;
/// Values of one head of a vision transformer.
const HEAD: usize = 32;

/// A network that can be a student.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StudentKind {
    architecture: Architecture,
    depth: Option<usize>,
    width: Option<usize>,
    norm: Option<NormKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    ConvNet,
    ResNet18,
    Vgg11,
    AlexNet,
    LeNet,
    Mlp,
    Vit,
}

impl Architecture {
    const ALL: [Architecture; 7] = [
        Architecture::ConvNet,
        Architecture::ResNet18,
        Architecture::Vgg11,
        Architecture::AlexNet,
        Architecture::LeNet,
        Architecture::Mlp,
        Architecture::Vit,
    ];

    fn name(self) -> &'static str {
        match self {
            Architecture::ConvNet => "convnet",
            Architecture::ResNet18 => "resnet18",
            Architecture::Vgg11 => "vgg11",
            Architecture::AlexNet => "alexnet",
            Architecture::LeNet => "lenet",
            Architecture::Mlp => "mlp",
            Architecture::Vit => "vit",
        }
    }

    /// Whether a name may state (depth, width, norm).
    fn choices(self) -> (bool, bool, bool) {
        match self {
            Architecture::ConvNet => (true, true, true),
            Architecture::ResNet18 | Architecture::Vgg11 => (false, true, true),
            Architecture::AlexNet | Architecture::Mlp => (false, true, false),
            Architecture::LeNet => (false, false, false),
            Architecture::Vit => (true, true, false),
        }
    }
}

impl StudentKind {
    /// The dataset-condensation benchmark's ConvNet, in the protocol's depth and width.
    pub const CONVNET: StudentKind = StudentKind::plain(Architecture::ConvNet);
    /// Each architecture in its usual size.
    pub const ALL: [StudentKind; 7] = [
        StudentKind::CONVNET,
        StudentKind::plain(Architecture::ResNet18),
        StudentKind::plain(Architecture::Vgg11),
        StudentKind::plain(Architecture::AlexNet),
        StudentKind::plain(Architecture::LeNet),
        StudentKind::plain(Architecture::Mlp),
        StudentKind::plain(Architecture::Vit),
    ];

    const fn plain(architecture: Architecture) -> Self {
        StudentKind { architecture, depth: None, width: None, norm: None }
    }

    /// Builds it for images of `size` x `size` pixels. A ConvNet whose name states no depth or width gets those of
    /// `convnet`; the others have the benchmark's sizes, and the vision transformer 6 blocks of width 192.
    ///
    /// # Errors
    /// It cannot read images of this size, or would not fit into memory.
    pub fn build(
        self,
        convnet: ConvNetSize,
        size: usize,
        classes: usize,
        vb: VarBuilder,
    ) -> Result<Box<dyn Classifier>> {
        let parameters = count(|vb| self.network(convnet, size, classes, vb))?;
        if parameters > MOST_PARAMETERS {
            fail!(
                "student {self}: would have {parameters} parameters, expected at most {MOST_PARAMETERS}; make it smaller"
            );
        }
        self.network(convnet, size, classes, vb)
    }

    fn network(self, convnet: ConvNetSize, size: usize, classes: usize, vb: VarBuilder) -> Result<Box<dyn Classifier>> {
        let width = |usual| self.width.unwrap_or(usual);
        let norm = self.norm.unwrap_or(NormKind::Instance);
        Ok(match self.architecture {
            Architecture::ConvNet => {
                let (depth, width) = (self.depth.unwrap_or(convnet.depth), width(convnet.width));
                Box::new(ConvNet::new(ConvNetConfig { depth, width, norm, size, classes }, vb)?)
            }
            Architecture::ResNet18 => {
                Box::new(ResNet::new(ResNetConfig { width: width(64), norm, size, classes }, vb)?)
            }
            Architecture::Vgg11 => Box::new(Vgg::new(VggConfig { width: width(64), norm, size, classes }, vb)?),
            Architecture::AlexNet => Box::new(AlexNet::new(AlexNetConfig { width: width(128), size, classes }, vb)?),
            Architecture::LeNet => Box::new(LeNet::new(size, classes, vb)?),
            Architecture::Mlp => Box::new(Mlp::new(MlpConfig { width: width(128), size, classes }, vb)?),
            Architecture::Vit => {
                let (depth, width) = (self.depth.unwrap_or(6), width(192));
                Box::new(Vit::new(VitConfig { depth, width, heads: (width / HEAD).max(1), size, classes }, vb)?)
            }
        })
    }

    /// Takes one word of a name; none if it does not fit.
    fn with(mut self, word: &str) -> Option<Self> {
        let (depth, width, norm) = self.architecture.choices();
        let number = |prefix, most| word.strip_prefix(prefix)?.parse().ok().filter(|n| (1..=most).contains(n));
        let named = NormKind::ALL.into_iter().find(|kind| kind.as_str() == word);
        match (number("d", MAX_DEPTH), number("w", MAX_WIDTH), named) {
            (Some(n), _, _) if depth => self.depth = Some(n),
            (_, Some(n), _) if width => self.width = Some(n),
            (_, _, Some(kind)) if norm => self.norm = Some(kind),
            _ => return None,
        }
        Some(self)
    }
}

impl fmt::Display for StudentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.architecture.name())?;
        self.depth.map_or(Ok(()), |depth| write!(f, "-d{depth}"))?;
        self.width.map_or(Ok(()), |width| write!(f, "-w{width}"))?;
        self.norm.map_or(Ok(()), |norm| write!(f, "-{norm}"))
    }
}

impl FromStr for StudentKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let mut words = name.split('-');
        let first = words.next().unwrap_or_default();
        let known = Architecture::ALL.map(Architecture::name);
        let Some(architecture) = Architecture::ALL.into_iter().find(|a| a.name() == first) else {
            let near = nearest(first, known).map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(Error::Usage(format!(
                "student {name} is unknown; expected one of {}, and after it what is not as usual, for example \
                 convnet-d4-w64-group{near}",
                known.join(", ")
            )));
        };
        let kind = words.try_fold(StudentKind::plain(architecture), |kind, word| kind.with(word));
        // One spelling each, for names of files.
        kind.filter(|kind| kind.to_string() == name).ok_or_else(|| {
            let (depth, width, norm) = architecture.choices();
            let norms = NormKind::ALL.map(|kind| format!("-{kind}")).join(", ");
            let allowed = [(depth, "-dN (depth)"), (width, "-wN (width)"), (norm, &norms)];
            let allowed: Vec<&str> = allowed.iter().filter(|(may, _)| *may).map(|(_, text)| *text).collect();
            let allowed = if allowed.is_empty() { "nothing".to_string() } else { allowed.join(", then ") };
            Error::Usage(format!("student {name} is unknown; expected {first}, and after it {allowed}"))
        })
    }
}
