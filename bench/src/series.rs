//! The data: for each device one random walk over seven points, in hundredths, one row every ten
//! minutes. The same seed always gives the same value for the same (device, index), so what must be
//! stored can be computed again afterwards.

/// Event time of index 0, 2014-01-01T00:00:00Z, in epoch milliseconds.
pub const START_MS: i64 = 1_388_534_400_000;
/// Milliseconds between two rows of a device.
pub const STEP_MS: i64 = 600_000;

/// The points of a wind turbine, in the order in which a row's values stand.
pub const POINTS: [Point; 7] = [
    Point {
        name: "Ba_avg",
        step: 10,
        low: -500,
        high: 9_000,
    },
    Point {
        name: "P_avg",
        step: 2_000,
        low: -2_000,
        high: 205_000,
    },
    Point {
        name: "Ws_avg",
        step: 50,
        low: 0,
        high: 2_500,
    },
    Point {
        name: "Va_avg",
        step: 30,
        low: -18_000,
        high: 18_000,
    },
    Point {
        name: "Ot_avg",
        step: 20,
        low: -2_000,
        high: 4_000,
    },
    Point {
        name: "Ya_avg",
        step: 100,
        low: 0,
        high: 36_000,
    },
    Point {
        name: "Wa_avg",
        step: 100,
        low: 0,
        high: 36_000,
    },
];

/// A point's name, the largest step from one row to the next, and its range; in hundredths.
#[derive(Debug)]
pub struct Point {
    pub name: &'static str,
    step: i32,
    low: i32,
    high: i32,
}

/// The values of one row, in hundredths, in the order of [`POINTS`].
pub type Values = [i32; POINTS.len()];

/// The key under which device number `device` is declared.
pub fn device_key(device: u32) -> String {
    format!("T{device:06}")
}

/// Event time of a row in epoch milliseconds.
pub fn time_ms(index: u32) -> i64 {
    START_MS + i64::from(index) * STEP_MS
}

/// One device's rows, from index 0 on.
#[derive(Debug, Clone)]
pub struct Walk {
    random: Random,
    values: Values,
    index: u32,
}

impl Walk {
    pub fn new(seed: u64, device: u32) -> Self {
        let mut random = Random::new(seed ^ (u64::from(device) << 32));
        let values = std::array::from_fn(|p| {
            let Point { low, high, .. } = POINTS[p];
            low + random.below((high - low) as u32) as i32
        });
        Self {
            random,
            values,
            index: 0,
        }
    }

    /// The index of the row that [`Walk::advance`] returns next.
    pub fn index(&self) -> u32 {
        self.index
    }

    pub fn advance(&mut self) -> Values {
        let row = self.values;
        // 7 × 9 bits of one draw: steps of −255/256 to +256/256 of the point's largest.
        let draw = self.random.next();
        for (p, point) in POINTS.iter().enumerate() {
            let nine_bits = ((draw >> (9 * p)) & 511) as i32;
            let moved = self.values[p] + (((nine_bits - 255) * point.step) >> 8);
            self.values[p] = if moved < point.low {
                2 * point.low - moved
            } else if moved > point.high {
                2 * point.high - moved
            } else {
                moved
            };
        }
        self.index += 1;
        row
    }
}

/// splitmix64: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[expect(
        clippy::should_implement_trait,
        reason = "an endless source, not an iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u32
    }
}
