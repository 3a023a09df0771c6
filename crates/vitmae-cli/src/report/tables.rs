//! A run's numbers as CSV.

use std::fmt::Write;

use super::history::{History, Step};

/// One line an update.
pub fn steps(history: &History) -> String {
    let mut text = "step,epoch,loss,lr,gradient_norm,images_per_second\n".to_owned();
    for Step { step, epoch, loss, lr, gradient_norm, images_per_second } in &history.steps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{step},{epoch},{loss},{lr},{gradient_norm},{images_per_second}");
    }
    text
}

/// One line an epoch; a number that an epoch lacks is left empty.
pub fn epochs(history: &History) -> String {
    let own = ["epoch", "step", "train_loss", "train_lr"].map(str::to_owned);
    let keys: Vec<String> = own.into_iter().chain(history.evaluation_keys()).collect();
    let mut text = keys.join(",") + "\n";
    for numbers in history.epochs.values() {
        let cell = |key: &String| numbers.get(key).map_or(String::new(), f64::to_string);
        text += &(keys.iter().map(cell).collect::<Vec<_>>().join(",") + "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::history;
    use super::*;

    #[test]
    fn tables_have_a_line_for_each() {
        assert_eq!(
            steps(&history()),
            "step,epoch,loss,lr,gradient_norm,images_per_second\n1,0,2,0.1,3,10\n2,0.5,1.5,0.2,2,10\n3,1,1.2,0.3,1,20\n"
        );
        assert_eq!(
            epochs(&history()),
            "epoch,step,train_loss,train_lr,val_accuracy,val_loss\n1,2,1.75,0.2,0.5,1.4\n"
        );
    }
}
