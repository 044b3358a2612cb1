"""A MACE model learns curvature from Hessian-vector products of GFN2-xTB, and runs in MACE as before."""

from mace.calculators import MACECalculator

import hesse
from hesse.models.adapters.mace import MacePotential

molecules = [m for m in hesse.g2_molecules(("H", "C", "O")) if len(m) <= 7]
samples = hesse.sample_normal_modes(molecules, "gfn2", workers=0, quiet=True)
hesse.label(samples.structures, "gfn2", "labeled.h5", workers=0, quiet=True)
training, validation = hesse.read_dataset("labeled.h5").split(0.8, 0.2, by_group=False)

potential = MacePotential.from_file("start.model", trust_pickle=True)
weights = hesse.LossWeights(energy=1.0, forces=1.0, hvp=0.1)
config = hesse.TrainConfig(weights=weights, reference_energies="fit", steps=300, optimizer={"learning_rate": 5e-3})
result = hesse.train(training, validation, config, output="run", potential=potential)

for property, unit in (("energy", "eV"), ("forces", "eV/Å"), ("hvp", "eV/Å²")):
    before, after = (hesse.evaluate(p, validation).row(property).value for p in (potential, result.potential))
    print(f"{property:>8}: {before:.3f} -> {after:.3f} {unit}")
atoms = hesse.to_ase(validation.structures[0])
atoms.calc = MACECalculator("run/model.model", device="cpu", default_dtype="float32")
print(f"{result.model_file} in MACE: {atoms.get_potential_energy():.3f} eV")
