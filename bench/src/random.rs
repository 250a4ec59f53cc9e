//! Numbers that look like chance, and are the same in every run.

/// A sequence of them (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// That of a seed. Those of seeds beside each other have nothing in common.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0 and below 1.
    pub(crate) fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.part() * bound as f64) as usize
    }

    /// True so often of a hundred times.
    pub(crate) fn is_one_of_hundred(&mut self, how_often: u32) -> bool {
        self.part() * 100.0 < f64::from(how_often)
    }

    /// Log-normal: half are below the median, and `spread` is the deviation of the logarithm.
    pub(crate) fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        // Box and Muller's, of which we take one of two. The logarithm of zero would be none.
        let (radius, angle) = (1.0 - self.part(), std::f64::consts::TAU * self.part());
        median * (spread * (-2.0 * radius.ln()).sqrt() * angle.cos()).exp()
    }

    /// One or more, few of them many: above n with a chance of n to the power of −`steepness`.
    pub(crate) fn few_are_many(&mut self, steepness: f64) -> f64 {
        (1.0 - self.part()).powf(-1.0 / steepness)
    }
}

/// Which of many is asked for: the n-th most popular with a chance in proportion to 1/n (Zipf, s = 1).
#[derive(Debug)]
pub(crate) struct Popularity {
    /// For each, the sum of what it and those before it weigh.
    up_to: Vec<f64>,
}

impl Popularity {
    pub(crate) fn of(many: usize) -> Self {
        let weighed = (1..=many).scan(0.0, |sum, n| {
            *sum += 1.0 / n as f64;
            Some(*sum)
        });
        Self { up_to: weighed.collect() }
    }

    /// Its rank among them, the most popular one's being 0.
    pub(crate) fn pick(&self, random: &mut Random) -> usize {
        let all = self.up_to.last().copied().unwrap_or_default();
        let at = random.part() * all;
        self.up_to.partition_point(|up_to| *up_to <= at).min(self.up_to.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 100_000;

    #[test]
    fn a_seed_has_one_sequence_and_its_neighbour_another() {
        let four = |seed| {
            let mut random = Random::new(seed);
            [(); 4].map(|()| random.part())
        };
        assert_eq!(four(7), four(7));
        assert!(four(7).iter().all(|part| !four(8).contains(part)));
    }

    #[test]
    fn parts_are_spread_evenly() {
        let mut random = Random::new(1);
        let mut tenths = [0; 10];
        for _ in 0..MANY {
            tenths[random.below(10)] += 1;
        }
        assert!(tenths.iter().all(|count| (9_500..10_500).contains(count)), "{tenths:?}");
    }

    #[test]
    fn half_of_log_normal_sizes_are_below_the_median_and_the_average_is_above_it() {
        let mut random = Random::new(1);
        let sizes: Vec<f64> = (0..MANY).map(|_| random.log_normal(1000.0, 0.8)).collect();
        let below = sizes.iter().filter(|size| **size < 1000.0).count();
        assert!((49_000..51_000).contains(&below), "{below}");
        // exp(0.8² / 2) = 1.377
        let average = sizes.iter().sum::<f64>() / MANY as f64;
        assert!((1340.0..1420.0).contains(&average), "{average}");
    }

    #[test]
    fn few_are_many() {
        let mut random = Random::new(1);
        let counts: Vec<f64> = (0..MANY).map(|_| random.few_are_many(1.5)).collect();
        assert!(counts.iter().all(|count| *count >= 1.0));
        // 4 to the power of −1.5 is an eighth.
        let above_four = counts.iter().filter(|count| **count > 4.0).count();
        assert!((12_000..13_000).contains(&above_four), "{above_four}");
    }

    #[test]
    fn the_second_most_popular_is_asked_for_half_as_often_as_the_first() {
        let (popularity, mut random) = (Popularity::of(1000), Random::new(1));
        let mut asked = vec![0; 1000];
        for _ in 0..MANY {
            asked[popularity.pick(&mut random)] += 1;
        }
        // The thousand weigh 7.485.
        assert!((13_000..13_700).contains(&asked[0]), "{}", asked[0]);
        assert!((6_400..7_000).contains(&asked[1]), "{}", asked[1]);
        let upper_half: i32 = asked[500..].iter().sum();
        assert!((8_900..9_700).contains(&upper_half), "{upper_half}");
    }
}
