//! Rotary position embedding: the periods in which pairs of a head's dimensions turn.

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the periods.
    pub theta: f32,
    /// Scaling of positions or periods.
    pub scaling: RopeScaling,
}

/// Scaling of rotary positions beyond the trained context.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3: long periods are stretched, short ones kept, with a ramp in between.
    Llama3 {
        /// The factor for long periods.
        factor: f32,
        /// Wavelengths above `original_context / low` are long.
        low: f32,
        /// Wavelengths below `original_context / high` are short.
        high: f32,
        /// The context before scaling.
        original_context: f32,
    },
    /// `YaRN`: as Llama 3's with a ramp over dimensions; the rotated dimensions are scaled up a little.
    Yarn {
        /// The factor for long periods.
        factor: f32,
        /// Turns within the original context from which on a period is kept.
        fast: f32,
        /// Turns up to which a period is stretched.
        slow: f32,
        /// The context before scaling.
        original_context: f32,
        /// Factor on the rotated dimensions.
        magnitude: f32,
        /// Whether the ramp begins and ends at whole dimensions.
        truncate: bool,
    },
    /// Each period is multiplied by a factor of its own; the rotated dimensions are scaled up a little.
    LongRope {
        /// The factors, of long contexts: as in mlx-lm, also where the context is short.
        factors: Vec<f32>,
        /// Factor on the rotated dimensions.
        magnitude: f32,
    },
    /// Only the first pairs turn, with the periods that they have among all pairs of a head.
    Proportional {
        /// The share of the pairs that turn.
        share: f32,
        /// The factor on their periods.
        factor: f32,
    },
    /// Each period is multiplied by a factor of its own (GGUF stores Llama 3's scaling like this).
    Factors(Vec<f32>),
}

impl RopeScaling {
    /// Its numbers, by which something is divided or multiplied.
    pub(super) fn numbers(&self) -> Vec<f32> {
        match self {
            Self::None => Vec::new(),
            Self::Linear { factor } => vec![*factor],
            Self::Proportional { share, factor } => vec![*share, *factor],
            Self::Llama3 { factor, low, high, original_context } => vec![*factor, *low, *high, *original_context],
            Self::Yarn { factor, fast, slow, original_context, magnitude, truncate: _ } => {
                vec![*factor, *fast, *slow, *original_context, *magnitude]
            }
            Self::LongRope { factors, magnitude } => factors.iter().chain([magnitude]).copied().collect(),
            Self::Factors(factors) => factors.clone(),
        }
    }
}

impl Rope {
    /// The period of each pair of `rotated` dimensions; `None` for plain powers of `theta`.
    pub fn periods(&self, rotated: usize) -> Option<Vec<f32>> {
        let plain = self.plain_periods(rotated);
        match &self.scaling {
            RopeScaling::None | RopeScaling::Linear { .. } => None,
            RopeScaling::Factors(factors) | RopeScaling::LongRope { factors, .. } => {
                Some(plain.iter().zip(factors).map(|(p, f)| p * f).collect())
            }
            RopeScaling::Proportional { share, factor } => {
                let turning = (rotated as f32 * share) as usize / 2;
                let period = |(at, period): (usize, &f32)| if at < turning { period * factor } else { f32::INFINITY };
                Some(plain.iter().enumerate().map(period).collect())
            }
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                let stretch = |&period: &f32| {
                    let wavelength = 2.0 * std::f32::consts::PI * period;
                    if wavelength > original_context / low {
                        period * factor
                    } else if wavelength > original_context / high {
                        let smooth = (original_context / wavelength - low) / (high - low);
                        period / ((1.0 - smooth) / factor + smooth)
                    } else {
                        period
                    }
                };
                Some(plain.iter().map(stretch).collect())
            }
            RopeScaling::Yarn { factor, fast, slow, original_context, truncate, magnitude: _ } => {
                // The dimension whose period turns so often within the original context.
                let dimension = |turns: f32| {
                    let periods = (original_context / (turns * 2.0 * std::f32::consts::PI)).ln();
                    rotated as f32 * periods / (2.0 * self.theta.ln())
                };
                let (first, last) = (dimension(*fast), dimension(*slow));
                let (first, last) = if *truncate { (first.floor(), last.ceil()) } else { (first, last) };
                let (first, mut last) = (first.max(0.0), last.min(rotated as f32 - 1.0));
                if first == last {
                    last += 0.001;
                }
                let stretch = |(at, &period): (usize, &f32)| {
                    let kept = 1.0 - ((at as f32 - first) / (last - first)).clamp(0.0, 1.0);
                    let long = factor * period;
                    (long * period) / (long * kept + period * (1.0 - kept))
                };
                Some(plain.iter().enumerate().map(stretch).collect())
            }
        }
    }

    /// The periods before any scaling, one for each pair `i` of `rotated` dimensions: `theta^(2i / rotated)`.
    pub fn plain_periods(&self, rotated: usize) -> Vec<f32> {
        (0..rotated / 2).map(|i| self.theta.powf(2.0 * i as f32 / rotated as f32)).collect()
    }

    /// The factor by which positions are multiplied.
    pub fn position_scale(&self) -> f32 {
        match self.scaling {
            RopeScaling::Linear { factor } => 1.0 / factor,
            _ => 1.0,
        }
    }

    /// The factor on the rotated dimensions.
    pub fn magnitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { magnitude, .. } | RopeScaling::LongRope { magnitude, .. } => magnitude,
            _ => 1.0,
        }
    }
}
